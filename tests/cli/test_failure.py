from proxy.cli.failure import CommandFailed, Exit


def test_exit_codes_are_those_that_supervisors_know():
    assert [int(code) for code in Exit] == [0, 1, 2, 78, 130]


def test_command_failed_shows_its_message_alone():
    assert str(CommandFailed("do this")) == "do this"
