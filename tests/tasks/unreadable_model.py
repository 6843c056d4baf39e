"""A judge model whose replies cannot be parsed."""

from longreward.judge import ChatReply, ChatRequest


class UnreadableModel:
    """Praises every response without a rating, and extracts nothing; counts the requests."""

    name = "chatty"

    def __init__(self) -> None:
        self.requests = 0

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        self.requests += 1
        return ChatReply("" if request.template == "extraction" else "What a good answer!")

    async def close(self) -> None:
        pass
