"""The documents that the ledger judges, as citations: as much of each as its text and its address say."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Document:
    """A citation; an empty field is one that neither the text nor its address gives.

    Attributes:
      title: the title.
      author: the author.
      date: the day or term.
      address: the address.

    Example:
      >>> from refgrad.claims import DOCUMENTS
      >>> DOCUMENTS["D4"].author
      'Matthew Jin'
    """

    title: str
    author: str = ""
    date: str = ""
    address: str = ""

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.author, f"“{self.title}”", self.date, self.address)))


DOCUMENTS = {
    "D0": Document("Backpropagation: From Intuition to FLOPs", "", "28 April 2025", "timashov.ai/blog/2025"),
    "D1": Document("Backpropagation"),
    "D2": Document(
        "Backpropagating through GPT-2",
        "Rushil Bhat",
        "18 December 2024",
        "https://rushilbhat.github.io/2024/12/18/backprop.html",
    ),
    "D3": Document("Neural network and backpropagation", "Bui Huu Dai", "8 August 2025"),
    "D4": Document("An Exercise in Backpropagation", "Matthew Jin", "Spring 2025"),
}
