"""All exceptions of the library, as one tree.

LongRewardError
├── ConfigError          params.yaml, an override or an argument is wrong; nothing was started
│   └── UsageError           an argument of a command names something that does not exist, such as a stage
├── DataError            a file or record cannot be used; names the file, the line and the reason
├── PolicyError          the policy or its tokenizer cannot be loaded or does not fit the data
│   ├── ServerUnavailable    the policy server is down, too slow or overloaded; a later run may succeed
│   └── ServerRefused        it refuses the key, the model or the request; a later run fails again
├── StateError           the state folder or the disk cannot be written; no partial file is left
├── WorkerProcessDied    a process of a distributed training died; the same call resumes from its checkpoint
├── WorkerError          a cluster worker cannot run its shard, or there is no worker; names the worker
├── BudgetExceeded       a budget is spent; all replies are recorded, and a higher budget resumes the run
├── NothingScored        scoring ended without any score; says how often each reason occurred
├── JudgeValidationError the judge failed its validation, and judge.check.gate requires that it passes
└── JudgeError           a judge, or an embedding model, gave no reply
    ├── JudgeUnavailable     down, too slow or overloaded after all retries; a later run may succeed
    ├── JudgeRefused         refuses the key, the model or the request format; a later run fails again
    ├── JudgeProtocolError   the address responds, but not in the OpenAI protocol
    ├── RequestRefused       one request was refused (content filter); the others continue
    │   └── PromptTooLong        it does not fit into the context window of the model
    ├── RequestFailed        one request failed at every retry while others succeeded; the others continue
    ├── UnreadableReply      the judge replies, but no reply can be parsed; the run stopped early
    └── BatchPending         requests are in files for another program; the same run continues once it has answered

A failed call raises. An unreadable reply does not: it is requested again and then recorded as unscored with a reason.
"""

from dataclasses import dataclass


class LongRewardError(Exception):
    """Root of all errors. The message names the offending value and says what to do."""


class ConfigError(LongRewardError):
    """A setting is unknown, of the wrong type or out of bounds."""


class UsageError(ConfigError):
    """An argument of a command is wrong: the command line exits with 2, as for an unknown option."""


class DataError(LongRewardError):
    """A file is missing, unreadable, or does not contain the expected records."""


class PolicyError(LongRewardError):
    """A policy, its tokenizer or its chat template cannot do what a stage needs."""


class ServerUnavailable(PolicyError):
    """The policy server is down, too slow or overloaded, and stayed so through all retries."""


class ServerRefused(PolicyError):
    """The policy server refuses the request, serves another model, or does not speak the OpenAI protocol."""


class StateError(LongRewardError):
    """State could not be written or read: full disk, read-only folder, damaged ledger."""


class WorkerProcessDied(LongRewardError):
    """A process of a distributed training died before its work was done; the others were stopped."""


class WorkerError(LongRewardError):
    """A worker lacks the project, a model or a key, died repeatedly, or no worker is connected."""


class BudgetExceeded(LongRewardError):
    """The budget of a scoring is spent. No call is in flight any more; a retry does not help."""


class NothingScored(LongRewardError):
    """The judge replied, and no response got a usable score."""


class JudgeValidationError(LongRewardError):
    """The judge is inconsistent, ranks known responses wrongly or follows injected instructions."""


@dataclass(frozen=True)
class TransientFailure:
    """Why a failed call may succeed later, and what that says about the load of the server."""

    throttled: bool = False
    """The server reports overload (429, 503)."""
    retry_after_s: float | None = None
    """Seconds that the server asks to wait; None: it does not say."""
    timed_out: bool = False
    """No reply came in time. The server may still be working on the request."""
    disconnected: bool = False
    """The connection was closed, or none was accepted in time."""

    @property
    def is_overload(self) -> bool:
        """Whether the server should get fewer calls at once."""
        return self.throttled or self.timed_out or self.disconnected


class JudgeError(LongRewardError):
    """A request got no reply."""

    transient: TransientFailure | None = None
    """Set where the same call may succeed if it is repeated."""

    may_be_billed = False
    """Whether the provider may charge for the failed call."""


class JudgeUnavailable(JudgeError):
    """The judge is down, too slow or overloaded, and stayed so through all retries."""


class JudgeRefused(JudgeError):
    """The judge refuses the key, does not know the model, or rejects the format of the request."""


class JudgeProtocolError(JudgeError):
    """The address responds, but not in the OpenAI chat protocol."""

    may_be_billed = True


class RequestRefused(JudgeError):
    """The judge declines this one request, as content filters do."""

    may_be_billed = True


class PromptTooLong(RequestRefused):
    """The request does not fit into the context window. It ends unscored; a later run repeats it."""

    may_be_billed = False


class RequestFailed(JudgeError):
    """This request failed at every retry while others succeeded. It ends unscored; a later run repeats it."""


class UnreadableReply(JudgeError):
    """None of the judge's replies follows the format of the prompts; the message shows one."""


class BatchPending(JudgeError):
    """The requests are written to files. Once another program has answered them, the same run continues."""
