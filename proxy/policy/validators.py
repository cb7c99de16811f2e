"""Properties of a secret that a pattern cannot express: check digits, and whether a value looks generated.

Rule of the file: a validator takes the secret as text, returns a fact, never raises and keeps no state. It sees at most
the rule's `max_length` characters, so its cost is bounded.

Source: ISO/IEC 7812-1 (Luhn), ISO 13616 (IBAN), GS1 (EAN-13), BIP 173 (bech32), the Bitcoin wiki (Base58Check),
RFC 7519 (JWT); GitHub and npm end their tokens in a CRC-32 of the random part, written with 62 digits.
"""

import base64
import binascii
import hashlib
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from proxy.policy import plausible

_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BECH32: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
_BETWEEN_GROUPS: Final = re.compile(r"%20|[ +-]")
_LETTER: Final = re.compile(r"[A-Za-z]")
_ENCODED: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_FICTION: Final = re.compile(r"555\D?01\d\d$")
_ONCE: Final = bytes((digit - ord("0")) % 10 for digit in range(256))
_TWICE: Final = bytes(sum(divmod(2 * digit, 10)) for digit in _ONCE)
"""Digit, as a character -> what its double adds to the checksum."""
_NO_DIGITS: Final = bytes(code for code in range(256) if code not in b"0123456789")
_USUAL_CARD: Final = 16
_CARD: Final = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:20[0-4]|22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[68]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12}|6(?:011|5\d\d|4[4-9]\d)\d{12}|62\d{14,17}"
    r"|(?:5018|50[23][08]|5893|6304|6759|676[1-3])\d{8,15}"
)
_SSN: Final = re.compile(r"(?!000|666|9)\d{3}[- ]?(?!00)\d\d[- ]?(?!0000)\d{4}")
_SSN_PUBLISHED: Final = {"078051120", "219099999", "457555462", "111223333"}
_IBAN_LENGTHS: Final = {
    **{"AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28},
    **{"CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18},
    **{"FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22},
    **{"IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20},
    **{"LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18},
    **{"NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SC": 31, "SD": 18},
    **{"SE": 24, "SI": 19, "SK": 24, "SM": 27, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22},
    **{"VG": 24, "XK": 20},
}
_IBAN_COUNTRIES: Final = {country: "".join(str(int(letter, 36)) for letter in country) for country in _IBAN_LENGTHS}
"""Country -> the digits that its letters stand for."""


def card(secret: str) -> bool:
    """Tell whether the digits are a card number: an issued range, the check digit, not a list of numbers."""
    digits = _digits(secret)
    if not _luhn(digits) or _CARD.fullmatch(digits) is None:
        return False
    if len(digits) == len(secret):
        return True
    groups = [int(group) for group in _BETWEEN_GROUPS.split(secret) if group]  # a rule may allow two marks in a row
    return len(groups) <= 3 or not 0 < max(groups) - min(groups) < 100


def may_be_cards(numbers: Sequence[bytes]) -> list[bool]:
    """Tell of each of many matches whether `card` may accept it: 16 digits need the right check digit.

    One calculation for all: as many columns are added as a number has digits, each one number in base 256.
    """
    compact = [number.translate(None, b" +-") for number in numbers]
    joined = b"".join([digits for digits in compact if len(digits) == _USUAL_CARD])
    total = 0
    for place in range(_USUAL_CARD):
        total += int.from_bytes(joined[place::_USUAL_CARD].translate(_ONCE if place % 2 else _TWICE), "little")
    sums = iter(total.to_bytes(len(joined) // _USUAL_CARD, "little"))
    return [len(digits) != _USUAL_CARD or next(sums) % 10 == 0 for digits in compact]


def luhn(secret: str) -> bool:
    """Tell whether digits called a card number have the right check digit, whoever issued the card."""
    digits = _digits(secret)
    return _luhn(digits) and len(set(digits)) > 1


def not_article(secret: str) -> bool:
    """Tell whether digits are not the number of an article, as in bar codes (EAN-13): its check digit is another."""
    codes = secret.encode("ascii", "replace").translate(_ONCE)
    return (sum(codes[::-2]) + 3 * sum(codes[-2::-2])) % 10 != 0


def iban(secret: str) -> bool:
    """Tell whether it is an account number of a known country, with the right length and check digits."""
    compact = _digits(secret)
    country, check, account = compact[:2], compact[2:4], compact[4:]
    if _IBAN_LENGTHS.get(country) != len(compact) or not (compact.isascii() and check.isdigit() and account.isalnum()):
        return False
    if not account.isdigit():
        for letter in set(_LETTER.findall(account)):
            account = account.replace(letter, str(int(letter, 36)))
    return int(account + _IBAN_COUNTRIES[country] + check) % 97 == 1


def ssn(secret: str) -> bool:
    """Tell whether it could be an issued social security number and is not a well-known fake one."""
    secret = secret.replace("%20", " ")
    return _SSN.fullmatch(secret) is not None and secret.replace("-", "").replace(" ", "") not in _SSN_PUBLISHED


def phone(secret: str) -> bool:
    """Tell whether it could be a telephone number: possible length and groups, not one reserved for fiction."""
    plain = _ENCODED.sub(" ", secret) if "%" in secret else secret
    digits = _decimals(plain)
    if not 9 <= len(digits) <= 15 or len(set(digits)) < 4:
        return False
    return "555" not in secret or _FICTION.search(secret) is None


def crc32_base62(secret: str) -> bool:
    """Tell whether the last six characters are the CRC-32 of the random ones before them."""
    body = secret.rpartition("_")[2]
    if len(body) < 36:
        return False
    value, digits = zlib.crc32(body[:-6].encode()), ""
    for _ in range(6):
        value, digit = divmod(value, 62)
        digits = _BASE62[digit] + digits
    return digits == body[-6:]


def bech32(secret: str) -> bool:
    """Tell whether the checksum over prefix and data is right."""
    prefix, _, data = secret.lower().rpartition("1")
    if not prefix or any(character not in _BECH32 for character in data):
        return False
    values = [ord(character) >> 5 for character in prefix] + [0] + [ord(character) & 31 for character in prefix]
    values += [_BECH32.index(character) for character in data]
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_BECH32_GENERATOR):
            check ^= generator if top >> bit & 1 else 0
    return check == 1


def base58check(secret: str) -> bool:
    """Tell whether the last four bytes are the double SHA-256 of those before them."""
    number = 0
    for character in secret:
        if character not in _BASE58:
            return False
        number = number * 58 + _BASE58.index(character)
    if number >= 1 << 304:
        return False
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return hashlib.sha256(hashlib.sha256(raw[:-4]).digest()).digest()[:4] == raw[-4:]


def jwt(secret: str) -> bool:
    """Tell whether the first part decodes to a JOSE header."""
    header = _decoded(secret.partition(".")[0])
    return header.startswith(b"{") and (b'"alg"' in header or b'"typ"' in header or b'"enc"' in header)


def user_and_password(secret: str) -> bool:
    """Tell whether it is the base64 of `user:password`."""
    token = _BASE64.match(secret.replace("%3D", "=").replace("%2B", "+").replace("%2F", "/"))
    plain = _decoded(token[0]) if token else b""
    return re.fullmatch(rb"[\x21-\x7e]{1,100}:[\x20-\x7e]{3,200}", plain) is not None


def snowflake(secret: str) -> bool:
    """Tell whether the first part is the base64 of a decimal id, as in Discord's tokens."""
    return re.fullmatch(rb"\d{15,21}", _decoded(secret.partition(".")[0])) is not None


VALIDATORS: Final[Mapping[str, Callable[[str], bool]]] = {
    "base58check": base58check,
    "bech32": bech32,
    "card": card,
    "crc32_base62": crc32_base62,
    "email": plausible.email,
    "iban": iban,
    "jwt": jwt,
    "key_of_aws": plausible.key_of_aws,
    "key_material": plausible.key_material,
    "luhn": luhn,
    "machine_made": plausible.machine_made,
    "mixed_case": plausible.mixed_case,
    "password": plausible.password,
    "not_article": not_article,
    "phone": phone,
    "scrambled": plausible.scrambled,
    "snowflake": snowflake,
    "ssn": ssn,
    "user_and_password": user_and_password,
}
"""By the names used in rules."""
SIFTS: Final[Mapping[str, Callable[[Sequence[bytes]], list[bool]]]] = {"card": may_be_cards}
"""For many matches of plain ASCII at once: where one says no, the validator of that name does, too."""


def _decimals(text: str) -> bytes | str:
    """Return the decimal digits in `text`, of any script."""
    return text.encode().translate(None, _NO_DIGITS) if text.isascii() else "".join(filter(str.isdecimal, text))


def _digits(secret: str) -> str:
    return secret.replace("%20", "").replace(" ", "").replace("-", "").replace("+", "")


def _luhn(digits: str) -> bool:
    codes = digits.encode("ascii", "replace")
    return sum(codes[::-2].translate(_ONCE) + codes[-2::-2].translate(_TWICE)) % 10 == 0


def _decoded(text: str) -> bytes:
    """Decode base64 of either alphabet, padded or not; empty if it is invalid."""
    try:
        return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), altchars=b"-_")
    except (binascii.Error, ValueError):
        return b""
