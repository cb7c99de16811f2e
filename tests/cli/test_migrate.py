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


def test_migrate_without_a_database_url_uses_the_private_one(sidegate):
    for expected in ("applied 001_foundation", "nothing to do"):
        done = sidegate("migrate", "up", "--data-dir", "d")
        assert (done.returncode, done.stderr) == (0, "")
        assert expected in done.stdout


def test_migrate_with_a_database_that_is_away_fails_in_one_line(sidegate):
    done = sidegate("migrate", "status", DATABASE_URL="postgresql://u:zqSECRETzq@127.0.0.1:1/x")
    assert done.returncode == 1
    assert re.fullmatch(r"sidegate: [^\n]+DATABASE_URL[^\n]+\n", done.stderr)
    assert "SECRET" not in done.stderr


def test_migrate_with_an_unencoded_password_says_so_without_quoting_it(sidegate):
    done = sidegate("migrate", "status", DATABASE_URL="postgresql://u:zq/SECRETzq@127.0.0.1:1/x")
    assert done.returncode == 78
    assert "DATABASE_URL: must name one host and port; percent-encode special characters" in done.stderr
    assert "SECRET" not in done.stderr
