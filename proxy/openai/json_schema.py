"""Validates a value against a JSON schema, in a bounded number of steps. Schemas are untrusted.

A few hundred bytes of schema can take hours: twenty levels of `allOf` with two equal references each, a recursive
reference, a pattern that backtracks, `uniqueItems` over objects. So every step is counted against one limit for the
whole validation; patterns are RE2's; references stay inside the schema, and nothing is ever fetched.

Rule of the file: anything uncertain is not judged (`Unjudged`): a keyword of the wrong type, a pattern that RE2 does
not support, a base changed by `$id`, `unevaluated..`. Unknown keywords are ignored, and so is `format`. Pure.

Source: JSON Schema 2020-12, Core sections 8, 10 and Validation section 6; of draft 7 `items` as a list,
`additionalItems` and `dependencies`, which clients still write.
"""

from collections.abc import Callable, Hashable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from urllib.parse import unquote

import re2

_MOST_DEPTH: Final = 64
_MOST_PATTERN: Final = 1000
_MOST_MEMORY: Final = 1 << 20
_BYTES_OF_A_STEP: Final = 64
"""Bytes of text that a pattern reads in the time of one step."""

Schema = Mapping[str, Any]


class Unjudged(Exception):
    """The schema cannot be evaluated here, or not within the steps. Says nothing about the value."""


def conforms(schema: Any, value: Any, most_steps: int) -> bool:
    """Tell whether `value` is valid against `schema`. Cost: at most `most_steps` steps of about a microsecond.

    Raises:
        Unjudged: the schema cannot be evaluated.
    """
    return _Judge(schema, most_steps).accepts(schema, value, 0)


class _Judge:
    """One validation: the complete schema, and the remaining steps."""

    def __init__(self, root: Any, most_steps: int) -> None:
        self.root = root
        self._left = most_steps
        self._patterns: dict[str, Any] = {}

    def spend(self, steps: int = 1) -> None:
        """Use steps. Raises Unjudged if none are left."""
        self._left -= steps
        if self._left < 0:
            raise Unjudged("too many steps")

    def accepts(self, schema: Any, value: Any, depth: int) -> bool:
        """Tell whether a value is valid against a part of the schema."""
        self.spend()
        if type(schema) is bool:
            return schema
        if type(schema) is not dict:
            raise Unjudged("a schema is an object or a boolean")
        if depth > _MOST_DEPTH or ("$id" in schema and schema is not self.root):
            raise Unjudged("too deep, or with another base")
        for name, argument in schema.items():
            self.spend()
            keyword = _KEYWORDS.get(name)
            if keyword is not None and not keyword(self, argument, value, schema, depth + 1):
                return False
        return True

    def matches(self, pattern: Any, text: str) -> bool:
        """Tell whether a pattern matches in a text."""
        found = self._patterns.get(_of(str, pattern))
        if found is None:
            found = self._patterns[pattern] = self._compiled(pattern)
        self.spend(len(text) // _BYTES_OF_A_STEP + 1)
        try:
            return found.search(text) is not None
        except UnicodeEncodeError:
            raise Unjudged("a text has half a surrogate pair") from None

    def _compiled(self, pattern: str) -> Any:
        self.spend(len(pattern))
        if len(pattern) > _MOST_PATTERN:
            raise Unjudged("a pattern is too long")
        options = re2.Options()
        options.max_mem, options.log_errors = _MOST_MEMORY, False
        try:
            return re2.compile(pattern, options)
        except (re2.error, UnicodeEncodeError):
            raise Unjudged("a pattern is not one of RE2's") from None

    def key(self, value: Any, depth: int = 0) -> Hashable:
        """Return a key that is equal exactly for equal JSON values: 1 and 1.0, but not 1 and true."""
        self.spend()
        if depth > _MOST_DEPTH:
            raise Unjudged("a value is nested too deeply")
        if type(value) is dict:
            return "object", frozenset((name, self.key(inner, depth + 1)) for name, inner in value.items())
        if type(value) is list:
            return "array", tuple([self.key(inner, depth + 1) for inner in value])
        return (type(value) is bool, value)


Keyword = Callable[[_Judge, Any, Any, Schema, int], bool]


def _of(kind: type, argument: Any) -> Any:
    if type(argument) is not kind:
        raise Unjudged("a keyword has an argument of a wrong type")
    return argument


def _is_number(value: Any) -> bool:
    return type(value) is int or type(value) is float


def _number(argument: Any) -> Any:
    if not _is_number(argument):
        raise Unjudged("a limit is no number")
    return argument


_TYPES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: type(value) is bool,
    "string": lambda value: type(value) is str,
    "array": lambda value: type(value) is list,
    "object": lambda value: type(value) is dict,
    "number": _is_number,
    "integer": lambda value: type(value) is int or (type(value) is float and value.is_integer()),
}


def _type(judge: _Judge, named: Any, value: Any, _schema: Schema, _depth: int) -> bool:
    names = named if type(named) is list else [named]
    judge.spend(len(names))
    if any(type(name) is not str or name not in _TYPES for name in names):
        raise Unjudged("a type is not known")
    return any(_TYPES[name](value) for name in names)


def _enum(judge: _Judge, allowed: Any, value: Any, _schema: Schema, _depth: int) -> bool:
    key = judge.key(value)
    return any(judge.key(one) == key for one in _of(list, allowed))


def _const(judge: _Judge, allowed: Any, value: Any, _schema: Schema, _depth: int) -> bool:
    return judge.key(allowed) == judge.key(value)


def _multiple_of(_judge: _Judge, divisor: Any, value: Any, _schema: Schema, _depth: int) -> bool:
    if _number(divisor) <= 0:
        raise Unjudged("a divisor is not positive")
    if not _is_number(value):
        return True
    try:
        return Decimal(repr(value)) % Decimal(repr(divisor)) == 0
    except InvalidOperation:
        raise Unjudged("a number is too long for an exact division") from None


def _limit(holds: Callable[[Any, Any], bool]) -> Keyword:
    def judged(_judge: _Judge, limit: Any, value: Any, _schema: Schema, _depth: int) -> bool:
        return holds(value, _number(limit)) if _is_number(value) else True

    return judged


def _size(kind: type[Any], holds: Callable[[int, Any], bool]) -> Keyword:
    def judged(_judge: _Judge, limit: Any, value: Any, _schema: Schema, _depth: int) -> bool:
        return holds(len(value), _number(limit)) if type(value) is kind else True

    return judged


def _pattern(judge: _Judge, pattern: Any, value: Any, _schema: Schema, _depth: int) -> bool:
    return judge.matches(pattern, value) if type(value) is str else True


def _properties(judge: _Judge, members: Any, value: Any, _schema: Schema, depth: int) -> bool:
    if type(value) is not dict:
        return True
    known = _of(dict, members)
    judge.spend(min(len(known), len(value)))
    return all(judge.accepts(known[name], inner, depth) for name, inner in value.items() if name in known)


def _pattern_properties(judge: _Judge, members: Any, value: Any, _schema: Schema, depth: int) -> bool:
    if type(value) is not dict:
        return True
    return all(
        judge.accepts(inner, value[name], depth)
        for pattern, inner in _of(dict, members).items()
        for name in value
        if judge.matches(pattern, name)
    )


def _additional_properties(judge: _Judge, inner: Any, value: Any, schema: Schema, depth: int) -> bool:
    if type(value) is not dict:
        return True
    known, patterns = _of(dict, schema.get("properties", {})), _of(dict, schema.get("patternProperties", {}))
    for name, member in value.items():
        judge.spend()
        if name in known or any(judge.matches(pattern, name) for pattern in patterns):
            continue
        if not judge.accepts(inner, member, depth):
            return False
    return True


def _property_names(judge: _Judge, inner: Any, value: Any, _schema: Schema, depth: int) -> bool:
    return all(judge.accepts(inner, name, depth) for name in value) if type(value) is dict else True


def _required(judge: _Judge, names: Any, value: Any, _schema: Schema, _depth: int) -> bool:
    judge.spend(len(_of(list, names)))
    return all(_of(str, name) in value for name in names) if type(value) is dict else True


def _dependent(judge: _Judge, members: Any, value: Any, _schema: Schema, depth: int) -> bool:
    """Evaluate `dependentRequired`, `dependentSchemas` and the former keyword for both."""
    if type(value) is not dict:
        return True
    for name, then in _of(dict, members).items():
        judge.spend()
        if name in value:
            is_list = type(then) is list
            if not (_required(judge, then, value, {}, depth) if is_list else judge.accepts(then, value, depth)):
                return False
    return True


def _prefix_items(judge: _Judge, schemas: Any, value: Any, _schema: Schema, depth: int) -> bool:
    if type(value) is not list:
        return True
    return all(judge.accepts(inner, one, depth) for inner, one in zip(_of(list, schemas), value, strict=False))


def _items(judge: _Judge, inner: Any, value: Any, schema: Schema, depth: int) -> bool:
    if type(value) is not list:
        return True
    if type(inner) is list:
        return _prefix_items(judge, inner, value, schema, depth)
    rest = value[len(_of(list, schema.get("prefixItems", []))) :]
    return all(judge.accepts(inner, one, depth) for one in rest)


def _additional_items(judge: _Judge, inner: Any, value: Any, schema: Schema, depth: int) -> bool:
    first = schema.get("items")
    if type(value) is not list or type(first) is not list:
        return True
    return all(judge.accepts(inner, one, depth) for one in value[len(first) :])


def _contains(judge: _Judge, inner: Any, value: Any, schema: Schema, depth: int) -> bool:
    if type(value) is not list:
        return True
    found = sum(judge.accepts(inner, one, depth) for one in value)
    least, most = _number(schema.get("minContains", 1)), schema.get("maxContains")
    return bool(found >= least and (most is None or found <= _number(most)))


def _unique_items(judge: _Judge, wanted: Any, value: Any, _schema: Schema, _depth: int) -> bool:
    if not _of(bool, wanted) or type(value) is not list:
        return True
    return len({judge.key(one) for one in value}) == len(value)


def _all_of(judge: _Judge, schemas: Any, value: Any, _schema: Schema, depth: int) -> bool:
    return all(judge.accepts(inner, value, depth) for inner in _of(list, schemas))


def _any_of(judge: _Judge, schemas: Any, value: Any, _schema: Schema, depth: int) -> bool:
    return any(judge.accepts(inner, value, depth) for inner in _of(list, schemas))


def _one_of(judge: _Judge, schemas: Any, value: Any, _schema: Schema, depth: int) -> bool:
    return sum(judge.accepts(inner, value, depth) for inner in _of(list, schemas)) == 1


def _not(judge: _Judge, inner: Any, value: Any, _schema: Schema, depth: int) -> bool:
    return not judge.accepts(inner, value, depth)


def _if(judge: _Judge, condition: Any, value: Any, schema: Schema, depth: int) -> bool:
    follows = schema.get("then" if judge.accepts(condition, value, depth) else "else", True)
    return judge.accepts(follows, value, depth)


def _ref(judge: _Judge, reference: Any, value: Any, _schema: Schema, depth: int) -> bool:
    return judge.accepts(_resolved(judge, _of(str, reference)), value, depth)


def _resolved(judge: _Judge, reference: str) -> Any:
    """Return the part of the schema that a JSON pointer names. No other references are followed."""
    if reference != "#" and not reference.startswith("#/"):
        raise Unjudged("a reference leads out of the schema")
    judge.spend(len(reference))
    part = judge.root
    for step in unquote(reference[2:]).split("/") if len(reference) > 1 else ():
        name = step.replace("~1", "/").replace("~0", "~")
        if type(part) is list and name.isdecimal() and int(name) < len(part):
            part = part[int(name)]
        elif type(part) is dict and name in part:
            part = part[name]
        else:
            raise Unjudged("a reference leads nowhere")
        if type(part) is dict and "$id" in part:
            raise Unjudged("a reference passes another base")
    return part


def _unknown(_judge: _Judge, _argument: Any, _value: Any, _schema: Schema, _depth: int) -> bool:
    raise Unjudged("a keyword is not supported")


_KEYWORDS: Final[Mapping[str, Keyword]] = {
    "type": _type,
    "enum": _enum,
    "const": _const,
    "multipleOf": _multiple_of,
    "maximum": _limit(lambda value, limit: value <= limit),
    "exclusiveMaximum": _limit(lambda value, limit: value < limit),
    "minimum": _limit(lambda value, limit: value >= limit),
    "exclusiveMinimum": _limit(lambda value, limit: value > limit),
    "maxLength": _size(str, lambda size, limit: size <= limit),
    "minLength": _size(str, lambda size, limit: size >= limit),
    "maxItems": _size(list, lambda size, limit: size <= limit),
    "minItems": _size(list, lambda size, limit: size >= limit),
    "maxProperties": _size(dict, lambda size, limit: size <= limit),
    "minProperties": _size(dict, lambda size, limit: size >= limit),
    "pattern": _pattern,
    "properties": _properties,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "propertyNames": _property_names,
    "required": _required,
    "dependentRequired": _dependent,
    "dependentSchemas": _dependent,
    "dependencies": _dependent,
    "prefixItems": _prefix_items,
    "items": _items,
    "additionalItems": _additional_items,
    "contains": _contains,
    "uniqueItems": _unique_items,
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "not": _not,
    "if": _if,
    "$ref": _ref,
    "$dynamicRef": _unknown,
    "$recursiveRef": _unknown,
    "unevaluatedItems": _unknown,
    "unevaluatedProperties": _unknown,
}
