"""What can go wrong, as one tree.

LongRewardError
├── ConfigError         params.yaml, an override or an argument is wrong: nothing was started
├── DataError           a file or a record cannot be used; names the file, the line and the reason
├── PolicyError         the model or its tokenizer cannot be loaded or does not fit the data
│   ├── ServerUnavailable   the policy's server is down, too slow or overloaded; asking later may help
│   └── ServerRefused       it refuses the key, the model's name or the request; asking again never helps
├── StateError          the state folder or the disk refuses: nothing half-written is left
├── ProcessesEnded      one of a training's processes was killed or broke down; the same call goes on from there
├── WorkerError         a worker of a cluster cannot do its shard, or there is none; names the worker
├── BudgetReached       a budget is spent: all answers are kept, and it goes on once the budget is raised
├── NothingScored       a scoring ended without a single score; says how often which reason was given
├── JudgeNotTrusted     the judge did not pass its check, and judge.check.gate requires that it does
└── JudgeError          a judge, or an embedding model, gave no answer
    ├── JudgeUnavailable    down, too slow or overloaded after all retries; asking later may help
    ├── JudgeRefused        the key, the model's name or the request is refused; asking again never helps
    ├── JudgeProtocolError  the address answers, but not in the OpenAI protocol
    ├── AnswerRefused       one question was refused (a content filter); the others go on
    ├── AnswerFailed        one question failed at every try while others were answered; they go on
    ├── JudgeUnreadable     it answers, and none of its replies can be parsed; nothing more was asked
    └── AnswersAwaited      questions wait in files for another program to answer them; then the same run goes on

A failed call raises; an unreadable verdict does not: it is asked again and then ends unscored with a reason.
"""

from dataclasses import dataclass


class LongRewardError(Exception):
    """The root. Its message names the value at fault and says what to do."""


class ConfigError(LongRewardError):
    """A setting is unknown, of the wrong type or out of bounds."""


class DataError(LongRewardError):
    """A file is missing, not readable or does not hold the records that it should."""


class PolicyError(LongRewardError):
    """A policy model, its tokenizer or its chat template cannot do what a stage needs."""


class ServerUnavailable(PolicyError):
    """The policy's server is down, too slow or overloaded, and stayed so through all retries."""


class ServerRefused(PolicyError):
    """The policy's server refuses the request, serves another model, or does not speak the OpenAI protocol."""


class StateError(LongRewardError):
    """Something could not be kept: a full disk, a folder that cannot be written, a damaged ledger."""


class WorkerProcessDied(LongRewardError):
    """A process of a training on several came to its end before its work was done, and the others were ended."""


class WorkerError(LongRewardError):
    """A worker lacks the project, a model or a key, ended its process again and again, or none is there."""


class BudgetExceeded(LongRewardError):
    """A scoring has taken what its budget allows; no call is in flight any more, and trying again never helps."""


class NothingScored(LongRewardError):
    """The judge answered, and no response got a score that anything could be done with."""


class JudgeValidationError(LongRewardError):
    """The judge repeats itself too little, ranks known answers wrongly or obeys attacks: nothing was scored."""


@dataclass(frozen=True)
class TransientFailure:
    """What a failure that may pass asks for before the next try."""

    throttled: bool = False
    """The server says that it has too much to do."""
    retry_after_s: float | None = None
    """How long it wants to be left alone; None: it does not say."""
    timed_out: bool = False
    """No reply came in time. The server may still be busy with the request."""
    disconnected: bool = False
    """The connection broke off, or none was accepted in time."""

    @property
    def is_overload(self) -> bool:
        """Whether the server should get fewer calls at once."""
        return self.throttled or self.timed_out or self.disconnected


class JudgeError(LongRewardError):
    """A question did not get an answer."""

    transient: TransientFailure | None = None
    """Set where the same call may go well in a moment."""

    may_be_billed = False
    """Whether the provider may charge for the call all the same."""


class JudgeUnavailable(JudgeError):
    """The judge is down, too slow or overloaded, and stayed so through all retries."""


class JudgeRefused(JudgeError):
    """The judge refuses the key, does not know the model, or rejects the request's form."""


class JudgeProtocolError(JudgeError):
    """Something answers at the address, but it does not speak the OpenAI chat protocol."""

    may_be_billed = True


class RequestRefused(JudgeError):
    """The judge declines this one question, as content filters do."""

    may_be_billed = True


class RequestFailed(JudgeError):
    """This one question got no answer at any try, while others did: it ends unscored, and a later run asks again."""


class UnreadableReply(JudgeError):
    """The judge answers in none of the formats that its prompts ask for; its message shows a reply."""


class BatchPending(JudgeError):
    """The questions are written to files; once another program has answered them, the same run goes on."""
