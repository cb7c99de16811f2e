import io
import json
import sys

from proxy.cli.main import main

KEY = "AKIA" + "QWERTYUIOP234567"
PASSWORD = "kX7mQ2pZ" + "9rT4"


def test_scan_of_clean_files_ends_with_0(sidegate, tmp_path):
    (tmp_path / "a.txt").write_text("nothing to see\n")
    done = sidegate("scan", "a.txt", "a.txt")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_scan_tells_the_place_and_never_the_secret(sidegate, tmp_path):
    (tmp_path / "a.py").write_text(f"\n\n键 = '{KEY}'\npassword = '{PASSWORD}' # {KEY}\n", encoding="utf-8")
    done = sidegate("scan", "a.py")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "a.py:3:6 aws-access-key-id high AKIA********",
        "a.py:4:13 assigned-password medium kX7********",
        "a.py:4:29 aws-access-key-id high AKIA********",
    ]
    assert KEY not in done.stdout + done.stderr


def test_scan_looks_for_what_was_asked(sidegate, tmp_path):
    (tmp_path / "a.txt").write_text(f"mail jane@acme-corp.com\n{KEY}\npassword = '{PASSWORD}'\nrm -rf /\n")
    high = sidegate("scan", "--severity", "high", "--category", "secret", "a.txt")
    assert [line.split()[1] for line in high.stdout.splitlines()] == ["aws-access-key-id"]
    personal = sidegate("scan", "--category", "pii", "a.txt")
    assert [line.split()[1] for line in personal.stdout.splitlines()] == ["email-address"]
    everything = sidegate("scan", "--category", "pii", "--category", "keyword", "a.txt")
    assert [line.split()[0] for line in everything.stdout.splitlines()] == ["a.txt:1:6", "a.txt:4:1"]


def test_scan_when_two_rules_find_one_secret_then_tells_the_heavier(sidegate, tmp_path):
    (tmp_path / "a.txt").write_text(f"api_key={KEY}\n")
    assert [line.split()[1] for line in sidegate("scan", "a.txt").stdout.splitlines()] == ["aws-access-key-id"]


def test_scan_as_json_names_skipped_files(sidegate, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"\0" + KEY.encode())
    (tmp_path / "a.txt").write_text(KEY)
    done = sidegate("scan", "--json", "a.bin", "a.txt")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {
        "findings": [
            {
                "file": "a.txt",
                "line": 1,
                "column": 1,
                "rule": "aws-access-key-id",
                "category": "secret",
                "severity": "high",
                "masked": "AKIA********",
            }
        ],
        "skipped": ["a.bin"],
    }
    assert done.stderr == "sidegate: a.bin: binary, skipped\n"


def test_scan_when_a_file_cannot_be_read_then_scans_the_others_and_ends_with_2(sidegate, tmp_path):
    (tmp_path / "a.txt").write_text(KEY)
    done = sidegate("scan", "none.txt", "a.txt", ".")
    assert done.returncode == 2
    assert done.stderr == "sidegate: none.txt: No such file or directory\nsidegate: .: Is a directory\n"
    assert len(done.stdout.splitlines()) == 1
    assert sidegate("scan").returncode == 2


def test_scan_redacts_with_rules_of_ones_own(sidegate, tmp_path):
    (tmp_path / "a.txt").write_bytes(f"é\r\nx={KEY};\n".encode())
    (tmp_path / "rules.yaml").write_text("rules: [{id: e, category: pii, severity: low, pattern: 'x='}]")
    done = sidegate("scan", "--redact", "--severity", "low", "--rules", "rules.yaml", "a.txt")
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["a.txt:2:1 e low ********", "a.txt:2:3 aws-access-key-id high AKIA********"]
    assert sidegate("scan", "--rules", "a.txt", "a.txt").returncode == 1


def test_scan_of_standard_input_leaves_every_other_byte(sidegate, monkeypatch, capsysbinary):
    content = b"\xffx=" + KEY.encode() + b";"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert main(["scan", "--redact", "-"]) == 1
    captured = capsysbinary.readouterr()
    assert captured.out == b"\xffx=AKIA********;"
    assert captured.err == b"<stdin>:1:4 aws-access-key-id high AKIA********\n"


def test_scan_of_files_in_utf_16_finds_and_keeps_their_encoding(sidegate, tmp_path, monkeypatch, capsysbinary):
    for number, encoding in enumerate(("utf-16-le", "utf-16-be")):
        path = tmp_path / f"{number}.env"
        path.write_bytes(f"\ufeffA=1\r\nK={KEY} \u00e4\r\n".encode(encoding))
        done = sidegate("scan", path.name)
        assert (done.returncode, done.stdout) == (1, f"{number}.env:2:3 aws-access-key-id high AKIA********\n")
        monkeypatch.chdir(tmp_path)
        assert main(["scan", "--redact", path.name]) == 1
        assert capsysbinary.readouterr().out == "\ufeffA=1\r\nK=AKIA******** \u00e4\r\n".encode(encoding)
    (tmp_path / "odd.bin").write_bytes(b"\xff\xfeA\0B")
    assert sidegate("scan", "odd.bin").stderr == "sidegate: odd.bin: binary, skipped\n"
