"""examples.py DOCUMENT URL NAME=VALUE... - two things that generated requests do not see

Every example of the document is what its schema says; and every key that the service at URL answers to a
GET stands in the document (answers may have more keys than schemas demand, but not ones that nobody
described). NAME=VALUE: what path parameters stand for, by the first word of the path: jobs=job_01...
"""

import json
import sys
from urllib.request import urlopen

import jsonschema_rs

document = json.load(open(sys.argv[1], encoding="utf-8"))
url, names = sys.argv[2], dict(a.split("=", 1) for a in sys.argv[3:])
counts = {"examples": 0, "answers": 0}
problems = []


def resolve(value):
    while isinstance(value, dict) and "$ref" in value:
        at = document
        for key in value["$ref"][2:].split("/"):
            at = at[key.replace("~1", "/").replace("~0", "~")]
        value = {**at, **{k: v for k, v in value.items() if k != "$ref"}}
    return value


def check(where, schema, value):
    counts["examples"] += 1
    whole = {"components": document["components"], "allOf": [schema]}
    for error in jsonschema_rs.Draft202012Validator(whole, validate_formats=True).iter_errors(value):
        problems.append(f"{where}: {error.instance_path}: {error.message[:300]}")


def check_media(where, content):
    for name, media in content.items():
        for example in [media["example"]] if "example" in media else []:
            check(f"{where} {name}", media["schema"], example)
        for key, example in media.get("examples", {}).items():
            check(f"{where} {name} {key}", media["schema"], example["value"])


def described(schema, value):
    """Paths of the keys in value that the schema does not name."""
    schema = resolve(schema)
    parts = [schema] + [resolve(s) for k in ("oneOf", "anyOf", "allOf") for s in schema.get(k, [])]
    parts += [resolve(s["then"]) for s in schema.get("allOf", []) if "then" in s and holds(s["if"], value)]
    if isinstance(value, list):
        items = [p["items"] for p in parts if isinstance(p.get("items"), dict)]
        return [f"[]{k}" for v in value for k in (described(items[0], v) if items else [])]
    if not isinstance(value, dict):
        return []
    known = {}
    for part in parts:
        for key, one in part.get("properties", {}).items():
            known.setdefault(key, []).append(one)
    if not known or any(isinstance(p.get("additionalProperties"), dict) for p in parts):
        return []  # any keys
    missing = [f".{k}" for k in value if k not in known]
    for key in value.keys() & known.keys():
        # of several descriptions the one that knows most
        missing += [f".{key}{k}" for k in min((described(s, value[key]) for s in known[key]), key=len)]
    return missing


def holds(schema, value):
    return jsonschema_rs.is_valid({"components": document["components"], "allOf": [schema]}, value)


for path, item in document["paths"].items():
    for method, operation in item.items():
        where = f"{method.upper()} {path}"
        check_media(f"{where} body", operation.get("requestBody", {}).get("content", {}))
        for status, answer in operation["responses"].items():
            check_media(f"{where} {status}", resolve(answer).get("content", {}))
        for parameter in map(resolve, operation.get("parameters", [])):
            if "example" in parameter:
                check(f"{where} {parameter['name']}", parameter["schema"], parameter["example"])
        schema = operation["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("schema")
        if method != "get" or schema is None or path == "/v1/openapi.json" or path.endswith("{path}"):
            continue
        kind = path.split("/")[2] if path.startswith("/v1/") else ""
        if "{id}" in path and kind not in names:
            continue
        with urlopen(url + path.replace("{id}", names.get(kind, "")), timeout=30) as answer:
            body = json.load(answer)
        counts["answers"] += 1
        problems += [f"{where}: answers {key}, which is not described" for key in sorted(set(described(schema, body)))]

for problem in problems:
    print(f"contract: {problem}", file=sys.stderr)
print(f"contract: {counts['examples']} examples, {counts['answers']} answers: {len(problems)} problems")
sys.exit(1 if problems or counts["answers"] < 10 else 0)
