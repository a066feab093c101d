"""What is right in itself and no JSON Schema can say, for requests that have to be accepted.

What is sealed cannot be made up, so it is left out: then `top` and `by`, `after` and `asOf`, `cursor`
and `offset` cannot disagree either. What is written in a grammar of its own gets a sentence of it.
Requests that have to be refused stay as they are.
"""

import schemathesis

SEALED = {"cursor", "asOf", "after", "top"}
SENTENCES = {
    "eventType": "user_signed_in,security_*",
    "ip": "192.0.2.0/24",
    "q": "passkey",
    "from": "-12h",
    "to": "-1h",
    "timeZone": "Europe/Vienna",
}


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    for parameters in (case.query, case.body):
        if not isinstance(parameters, dict):
            continue
        for name in SEALED & parameters.keys():
            del parameters[name]
        for name, value in parameters.items():
            sentence = SENTENCES.get(name.removeprefix("not."))
            if sentence is not None and value is not None:
                parameters[name] = [sentence] if isinstance(value, list) else sentence
