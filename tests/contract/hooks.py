"""hooks.py - what schemathesis has to be told: JSON lines go out as the text that they are"""

import schemathesis

schemathesis.serializer.alias("application/x-ndjson", "text/plain")
