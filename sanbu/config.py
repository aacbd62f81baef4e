"""Configuration: frozen, strict pydantic models, dotted overrides, one-line errors. Never imports torch.

A *choice* is one of several kinds for the same slot (`model=gpt2` or `model=llama`). Its base class is abstract;
every concrete kind is a final class with a field ``kind: Literal["name"]``. A slot accepts every kind that has been
imported, so a user's own class works in Python as soon as it is defined.
"""

from __future__ import annotations

import difflib
import json
import re
import types
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, PydanticCustomError, core_schema, to_jsonable_python

Auto = Literal["auto"]
LARGEST = 2**53  # of integers in a config
Positive = Annotated[int, Field(ge=1)]


def added(default: Any, **about: Any) -> Any:
    """A field that earlier versions did not have: left out of a dump at its default, so that hashes stay the same."""
    return Field(default, exclude_if=lambda value: value == default, **about)


class SanbuError(Exception):
    """An error that the user can fix. Its text is one line; the command line prints it and exits with code 2."""


class ConfigError(SanbuError):
    """A configuration that is not allowed: what was given, what is allowed, the nearest match."""


class Config(BaseModel):
    """Frozen and strict: ``"64"`` and ``True`` are not integers, unknown fields are refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", validate_default=True, protected_namespaces=())


class Choice(Config):
    """The base of a slot that several kinds can fill.

    table: "package:NAME", a dictionary in that package from the name of a kind to the file that defines it. A kind's
    file is imported when the kind is first named. Classes defined elsewhere are found as soon as they are defined.
    """

    table: ClassVar[str] = ""

    @classmethod
    def adopt(cls, replaced: Any) -> dict[str, Any]:
        """Fields of this kind that follow from the dumped config whose place it takes, where they are not given."""
        return {}

    @classmethod
    def kind_names(cls) -> list[str]:
        """The name of every kind that fits here. Imports nothing for a base that owns its table."""
        listed = list(contents(cls.table)) if "table" in cls.__dict__ else list(cls.kinds())
        return list(dict.fromkeys([*listed, *cls.defined()]))

    @classmethod
    def find(cls, name: str) -> type[Self] | None:
        """The class of that kind, or None; imports the file that defines it."""
        if name not in cls.defined() and name in contents(cls.table):
            module_of(cls.table, name)
        return cls.defined().get(name)

    @classmethod
    def kinds(cls) -> dict[str, type[Self]]:
        """Every kind that fits here by its name; imports the whole table."""
        for name in contents(cls.table):
            module_of(cls.table, name)
        return cls.defined()

    @classmethod
    def defined(cls) -> dict[str, type[Self]]:
        """Every final class from this one down that has been imported or defined so far, by the name of its kind."""
        name = kind_of(cls)
        found: dict[str, type[Self]] = {} if name is None else {name: cls}
        for child in cls.__subclasses__():
            found |= child.defined()
        return found

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if "kind" in cls.model_fields:
            return handler(source)
        return core_schema.no_info_wrap_validator_function(cls._choose, handler(source))

    @classmethod
    def _choose(cls, value: Any, handler: Callable[[Any], Self]) -> Self:
        if not isinstance(value, Mapping):
            return handler(value)
        name = str(value.get("kind", ""))
        kind = cls.find(name)
        if kind is None:
            text = f"the allowed kinds are: {', '.join(sorted(cls.kind_names()))}{nearest(name, cls.kind_names())}"
            raise PydanticCustomError("kind", "{text}", {"text": text})
        return kind.model_validate_json(json.dumps(value))


def kind_of(config: BaseModel | type[BaseModel]) -> str | None:
    """The name of a config's kind, or None for an abstract base and for a config that is not a choice."""
    fields = (config if isinstance(config, type) else type(config)).model_fields
    field = fields.get("kind")
    return get_args(field.annotation)[0] if field and get_origin(field.annotation) is Literal else None


def contents(table: str) -> dict[str, str]:
    """The dictionary at "package:NAME"; empty where no table is named."""
    package, _, name = table.partition(":")
    return getattr(import_module(package), name) if table else {}


def module_of(table: str, name: str) -> ModuleType:
    """Import the module of one entry of a table."""
    return import_module(f"{table.partition(':')[0]}.{contents(table)[name]}")


def nearest(given: str, allowed: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` when something allowed is close to what was given, else nothing."""
    match = difflib.get_close_matches(given, [str(name) for name in allowed], n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""


C = TypeVar("C", bound=Config)


def dump(config: Config) -> dict[str, Any]:
    """The whole config as plain JSON values, every kind with its own fields."""
    return config.model_dump(mode="json", serialize_as_any=True)


def load(cls: type[C], values: Mapping[str, Any], where: str = "") -> C:
    """Validate plain JSON values once. Raises ConfigError in one line; `where` is put before the path of the field."""
    check_integers(values, where)
    try:
        return cls.model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise ConfigError((where + "." if where else "") + one_line(error, cls)) from None


def check_integers(value: Any, path: str) -> None:
    """Raise ConfigError for an integer that JSON and tensors cannot hold exactly."""
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ConfigError(f"{path}: given {value}, allowed: integers from -{LARGEST} to {LARGEST}")
    parts = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        check_integers(part, f"{path}.{name}" if path else str(name))


def override(config: C, assignments: Iterable[str]) -> C:
    """Apply ``path.to.field=value`` texts to a config and validate once; shallow paths first, so kinds before fields.

    A value is JSON where it reads as JSON, plain text otherwise; naming a kind (``model=llama``) takes that kind's
    defaults. Raises ConfigError naming the path, what was given, what is allowed and the nearest match.
    """
    values = dump(config)
    for path, text in sorted(map(_split, assignments), key=lambda pair: pair[0].count(".")):
        _assign(type(config), values, path, text)
    return load(type(config), values)


def change(config: C, fields: Mapping[str, Any], where: str = "") -> C:
    """The config with these fields, validated; a value may be a config, plain JSON values, or the name of a kind.

    `kind` takes the defaults of another kind first. where: how the config is called in errors.
    Raises ConfigError naming the field, what was given, what is allowed and the nearest match.
    """
    values: dict[str, Any] = dump(config)
    cls: Any = type(config)
    kind = fields.get("kind", kind_of(config))
    if kind != kind_of(config) and isinstance(config, Choice):
        base = base_of(type(config))
        cls = base.find(kind)
        if cls is None:
            names = sorted(base.kind_names())
            raise ConfigError(f"{where}: unknown kind {kind!r}; allowed: {', '.join(names)}{nearest(str(kind), names)}")
        values = defaults(cls) | cls.adopt(values) | {"kind": kind}
    for name, value in fields.items():
        if name not in cls.model_fields:
            known = [field for field in cls.model_fields if field != "kind"]
            place = f"{where}.{name}" if where else name
            raise ConfigError(f"{place}: no field {name!r}; fields: {', '.join(known)}{nearest(name, known)}")
        values[name] = plain_value(value, cls.model_fields[name].annotation, name, values.get(name))
    return load(cls, values, where)


def plain_value(value: Any, annotation: Any, path: str, replaced: Any = None) -> Any:
    """JSON values of a config, of several, or of the defaults of a kind that is named. replaced: what was there."""
    base = choice_of(annotation)
    if base is not None and isinstance(value, str):
        holder = {path: replaced}
        _choose_kind(base, holder, path, path, value)
        return holder[path]
    if isinstance(value, Choice):
        adopted = value.adopt(replaced)
        return dump(value) | {name: part for name, part in adopted.items() if name not in value.model_fields_set}
    if isinstance(value, Config):
        return dump(value)
    if isinstance(value, Mapping):
        return completed(base, {key: plain_value(each, None, key) for key, each in value.items()}, replaced)
    return to_jsonable_python(value)


def completed(base: type[Choice] | None, given: Any, replaced: Any) -> Any:
    """Values given for a slot, with those that their kind adopts from what was there."""
    kind = base.find(str(given.get("kind"))) if base is not None and isinstance(given, dict) else None
    return given if kind is None else kind.adopt(replaced) | given


def base_of(cls: type[Choice]) -> type[Choice]:
    """The abstract base of a kind that owns its table, or the class below Choice."""
    family = [each for each in cls.__mro__ if issubclass(each, Choice) and each is not Choice]
    return next((each for each in family if "table" in each.__dict__), family[-1])


def _split(text: str) -> tuple[str, str]:
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise ConfigError(f"{text!r} is not an override; write path.to.field=value, as in schedule.steps=100")
    return path, value


def _assign(cls: type[Config], values: dict[str, Any], path: str, text: str) -> None:
    """Set one field in the dumped values, finding its class from the kinds that the values name."""
    *parents, name = path.split(".")
    annotation: Any = cls
    for parent in parents:
        annotation = _field(annotation, parent, path)
        if not isinstance(values.get(parent), dict):
            raise ConfigError(f"{path}: {parent} is {json.dumps(values.get(parent))}, which has no fields")
        values = values[parent]
        if (base := choice_of(annotation)) is not None:
            annotation = base.find(values["kind"])
    annotation = _field(annotation, name, path)
    base = choice_of(annotation)
    if base is None or text == "none" or text.startswith("{"):
        values[name] = completed(base, parse_value(text, annotation), values.get(name))
    else:
        _choose_kind(base, values, name, path, text)


def _choose_kind(base: type[Choice], values: dict[str, Any], name: str, path: str, text: str) -> None:
    """Put the defaults of a kind into a slot, unless the slot holds that kind already."""
    kind = base.find(text)
    if kind is None:
        names = sorted(base.kind_names())
        raise ConfigError(f"{path}: unknown kind {text!r}; allowed: {', '.join(names)}{nearest(text, names)}")
    replaced = values.get(name)
    if not isinstance(replaced, dict) or replaced["kind"] != text:
        values[name] = defaults(kind) | kind.adopt(replaced)


def defaults(kind: type[Choice]) -> dict[str, Any]:
    """The dumped fields of a kind that have a default."""
    optional = {name: field for name, field in kind.model_fields.items() if not field.is_required()}
    fields = {name: field.get_default(call_default_factory=True) for name, field in optional.items()}
    return {name: dump(part) if isinstance(part, Config) else to_jsonable_python(part) for name, part in fields.items()}


def _field(annotation: Any, name: str, path: str) -> Any:
    """The annotation of a field of a config class, or of an entry of a dictionary of configs."""
    for part in _alternatives(annotation):
        if get_origin(part) is dict:
            return get_args(part)[1]
        if isinstance(part, type) and issubclass(part, Config):
            if name not in part.model_fields:
                fields = [field for field in part.model_fields if field != "kind"]
                raise ConfigError(f"{path}: no field {name!r} here; fields: {', '.join(fields)}{nearest(name, fields)}")
            return part.model_fields[name].annotation
    raise ConfigError(f"{path}: there are no fields below here")


def choice_of(annotation: Any) -> type[Choice] | None:
    """The Choice base an annotation accepts, if any (also inside ``| None``)."""
    for part in _alternatives(annotation):
        if isinstance(part, type) and issubclass(part, Choice):
            return part
    return None


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


def parse_value(text: str, annotation: Any = None) -> Any:
    """JSON if it reads as JSON and the field is more than text; ``none`` is null; otherwise the text itself.

    ``True``, ``False`` and ``None`` are what they are in Python. A list of words needs no quotes: [ada,bob].
    """
    parts, word = _alternatives(annotation), text.lower()
    if word in ("none", "null") and type(None) in parts:
        return None
    if word in ("true", "false") and bool in parts:
        return word == "true"
    if str in parts and not any(part in (int, float, bool) for part in parts):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        bare = re.fullmatch(r'\[([^\[\]{}"]+)\]', text)
        return [each.strip() for each in bare[1].split(",")] if bare else text


def one_line(error: ValidationError, cls: type[BaseModel]) -> str:
    """The first problem of a pydantic error as one line: path, what was given, what is allowed, nearest match."""
    errors = error.errors(include_url=False)
    path, given = place(errors[0]["loc"]), errors[0].get("input")
    if errors[0]["type"] == "extra_forbidden":
        return f"{path}: no such field{nearest(path.rsplit('.', 1)[-1], cls.model_fields)}"
    messages = [each["msg"] for each in errors if place(each["loc"]) == path]
    texts = [message[0].lower() + message[1:] for message in messages]
    reasons = dict.fromkeys(text.removeprefix("value error, ") for text in texts)
    allowed = " or ".join(reasons).replace(" or input should be", " or")
    if not path:
        return allowed
    shown = json.dumps(given, default=str)
    return f"{path}: given {shown if len(shown) < 80 else shown[:77] + '...'}, but {allowed}"


UNION_TAGS = re.compile(r"(function-|constrained-|literal\[).*|int|float|bool|str|none")


def place(location: tuple[int | str, ...]) -> str:
    """The path of an error, without the tags that pydantic adds for the parts of a union."""
    *parents, last = location or ("",)
    kept = parents if UNION_TAGS.fullmatch(str(last)) else [*parents, last]
    return ".".join(str(part) for part in kept if not str(part).startswith("function-"))


def plain(value: Any) -> str:
    """A value as an override would give it."""
    if value is None:
        return "none"
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value, default=str)
