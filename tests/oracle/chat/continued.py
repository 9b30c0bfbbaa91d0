"""What transformers renders of a conversation whose last message is gone on with: its own code, over jinja_env's environment."""
import json

import jinja_env
from transformers.utils import chat_template_utils


def render(env, template, variables):
    """As jinja_env.render, of variables with continue_final_message."""
    chat_template_utils._compile_jinja_template = lambda source: jinja_env.compiled(env, source)
    v = json.loads(json.dumps(variables))
    try:
        text, _ = chat_template_utils.render_jinja_template([v.pop("messages")], chat_template=template, **v)
        return "text", text[0]
    except jinja_env.RaisedByTemplate as e:
        return "raised", str(e)
    except Exception as e:
        return "error", f"{type(e).__name__}: {e}"
