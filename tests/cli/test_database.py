import re


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
