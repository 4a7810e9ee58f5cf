"""What schemathesis has to know of Hookpool: which answers never end, and which 5xx is by contract."""

import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response

FOLLOWED = ("/api/changes", "/api/streams/{stream}/changes")


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs) -> None:
    # The streams of frames go on until the client leaves, and a run would wait in them. Long polling gives the same frames and ends.
    if case.path in FOLLOWED:
        case.headers["Accept"] = "application/json"
        case.headers["Prefer"] = "wait=0"


@schemathesis.check
def no_server_error(ctx: CheckContext, response: Response, case: Case) -> None:
    # Whoever asks for a position that is not there yet, and does not wait, is told so with 503.
    if response.status_code < 500:
        return
    code = response.json().get("code")
    asked = "minPosition" in (case.query or {})
    assert asked and code == "NOT_YET_APPLIED", f"{response.status_code} {code}"
