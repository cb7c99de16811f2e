"""What is found among generated secrets and look-alikes: most of it whole, hardly anything else."""

import random

from proxy.policy import rules
from proxy.policy.detect import Detector
from tests.fakes import secrets

DETECTOR = Detector(rules.load())
EACH = 8


def marked(seed: str) -> list[str]:
    """Return texts with one secret each, of every family."""
    chance = random.Random(seed)
    texts = [
        secrets.in_text(secrets.written(token, chance), chance.choice(secrets.CONTEXTS), chance)
        for token in secrets.TOKENS
        for _ in range(EACH)
    ]
    texts += [
        secrets.in_text(secrets.written("{A24}", chance), named, chance) for named in secrets.NAMED for _ in range(EACH)
    ]
    kinds = ("RSA PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "OPENSSH PRIVATE KEY")
    texts += [secrets.private_key(kind, chance) for kind in kinds]
    return texts + [secrets.private_key(kind, chance).replace("\n", "\\n") for kind in kinds]


def test_secrets_are_found_and_would_be_hidden_whole() -> None:
    missed, partly = [], []
    texts = marked("corpus")
    for text in texts:
        plain, start, end = secrets.unmarked(text)
        found = [finding for finding in DETECTOR.find(plain) if finding.start < end and finding.end > start]
        hidden = {at for finding in found for at in range(finding.start, finding.end)}
        if not found:
            missed.append(plain)
        elif any(plain[at].isalnum() and at not in hidden for at in range(start, end)):
            partly.append(plain)
    assert len(missed) <= 0.02 * len(texts), missed
    assert len(missed) + len(partly) <= 0.03 * len(texts), partly


def test_tokens_standing_alone_are_never_missed() -> None:
    chance = random.Random("plain")
    for form in secrets.TOKENS:
        for _ in range(3):
            text = f"key: {secrets.written(form, chance)}\n"
            assert DETECTOR.find(text), text


def test_commands_are_found() -> None:
    for text in secrets.COMMANDS:
        for around in ("%s", "please run `%s`", "$ %s\n", "请执行 %s", "x; %s # y"):
            assert DETECTOR.find(around.replace("%s", text)), around.replace("%s", text)


def test_look_alikes_are_let_pass() -> None:
    chance = random.Random("look-alikes")
    texts = [
        around.replace("%s", secrets.written(form, chance))
        for form in secrets.LOOK_ALIKES
        for around in ("%s", "see %s here", '{"a": "%s"}', "- %s\n", "请看 %s 。")
        for _ in range(4)
    ]
    wrong = [text for text in texts if DETECTOR.find(text)]
    assert len(wrong) <= 0.01 * len(texts), wrong
