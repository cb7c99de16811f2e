import re


def test_migrate_up_status_down_on_a_given_database(sidegate, empty_database_url):
    def migrate(*words: str) -> list[str]:
        done = sidegate("migrate", *words, DATABASE_URL=empty_database_url)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    assert migrate("status")[0].split() == ["001", "foundation", "pending", "-"]
    assert migrate("up", "--to", "1") == ["applied 001_foundation"]
    migrate("up")
    assert migrate("up") == ["nothing to do"]
    assert re.fullmatch(r"001  foundation +applied +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", migrate("status")[0])
    assert migrate("down", "--to", "0")[-1] == "rolled back 001_foundation"
    assert migrate("status")[0].split()[2] == "pending"


def test_migrate_to_a_version_that_does_not_exist_fails_in_one_line(sidegate, empty_database_url):
    done = sidegate("migrate", "up", "--to", "999", DATABASE_URL=empty_database_url)
    assert done.returncode == 1
    assert re.fullmatch(r"sidegate: there is no version 999: .*\n", done.stderr)
