"""A channel as the runner sees it: what is asked and not answered, published and not confirmed."""

from dataclasses import dataclass, field


@dataclass
class Question:
    """A request that has not been answered. The answer to a hidden one is not traced."""

    replies: frozenset
    hidden: bool
    name: str
    arguments: dict
    answer: object = None
    over: bool = False


@dataclass
class Delivery:
    """Tags given by the broker against the tags shown: see `Trace`."""

    shown: dict = field(default_factory=dict)
    next_shown: int = 1
    last_actual: int = 0


class Channel:
    """`state` is closed, opening, open, closing (our close is out) or refused (the broker's close
    waits for our close-ok, which the scenario withholds)."""

    def __init__(self, number, hidden=False):
        self.number = number
        self.hidden = hidden
        self.reset("closed")

    def reset(self, state):
        self.state = state
        self.questions = getattr(self, "questions", [])
        for question in self.questions:
            question.over = True
        self.questions = []
        self.confirming = False
        self.published = 0
        self.unconfirmed = set()
        self.confirmed = set()
        # (sequence, exchange, routing key) of mandatory messages: a return precedes its confirm.
        self.mandatory = []
        self.deliveries = Delivery()
        # Content that is being received: [method name, arguments, size or None, properties, body].
        self.assembling = None
        # Content that is being sent frame by frame: None, "header", or the number of bytes missing.
        self.sending = None
        # Raw frames went out: nobody knows what the broker makes of this channel.
        self.unsure = False

    @property
    def usable(self):
        """A synchronous request on this channel is answered in order."""
        return self.state == "open" and self.sending is None and not self.unsure

    def ask(self, question):
        self.questions.append(question)

    def answer(self, name, event):
        """The oldest question that `name` answers, now over; None if nothing was asked."""
        for index, question in enumerate(self.questions):
            if name in question.replies:
                del self.questions[index]
                question.answer = event
                question.over = True
                return question
        return None

    def publish(self, arguments):
        if self.confirming:
            self.published += 1
            self.unconfirmed.add(self.published)
        if arguments.get("mandatory"):
            key = (arguments.get("exchange", ""), arguments.get("routing-key", ""))
            self.mandatory.append((self.published, *key))

    def returned(self, arguments):
        """Takes the oldest mandatory message like this; says whether it was confirmed before."""
        key = (arguments["exchange"], arguments["routing-key"])
        for index, (sequence, *other) in enumerate(self.mandatory):
            if tuple(other) == key:
                del self.mandatory[index]
                return sequence in self.confirmed
        return False

    def confirm(self, tag, multiple):
        """The sequence numbers that a confirm settles; empty if it settles none."""
        tags = {n for n in self.unconfirmed if n <= tag} if multiple else {tag} & self.unconfirmed
        self.unconfirmed -= tags
        self.confirmed |= tags
        return tags
