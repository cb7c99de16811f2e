"""Check digits."""

from proxy.policy.validators import VALIDATORS


def test_card_and_iban_check_their_digits() -> None:
    assert VALIDATORS["card"]("4111 1111 1111 1111") and not VALIDATORS["card"]("4111 1111 1111 1112")
    assert VALIDATORS["iban"]("DE89370400440532013000") and not VALIDATORS["iban"]("DE88370400440532013000")
