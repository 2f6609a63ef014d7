"""What the tests of the page do again and again."""

BENEVOLENCE = "svt:benevolence"
KIND, COLD = "I brought soup to my neighbour while she was ill.", "Helping those who cannot pay you back wastes a Saturday."
HOSTILE = [
    "<img src=x onerror=\"document.title='taken'\"><b>bold</b>",
    "</script></style><script>document.title='taken'</script>",
    "\u202eمرحبا بالعالم שלום",
    "👩‍👩‍👧‍👦" * 80,
    "&lt;b&gt; ${document.title='taken'} {{7*7}} javascript:alert(1)",
    "x" * 10_000,
]


def signed(number: float) -> str:
    return "0.0" if abs(number) < 0.05 else f"{number:+.1f}".replace("-", "−")


def exact(number: float) -> str:
    return f"{number:.2f}".replace("-", "−")


def choose(page, view: str, *names: str) -> None:
    for name in names:
        page.locator(f"#{view}-values").get_by_label(name, exact=True).check()


def ask_scores(page, texts: list[str], *names: str) -> None:
    page.get_by_label("Texts", exact=True).fill("\n".join(texts))
    choose(page, "score", *names)
    page.get_by_role("button", name="Score", exact=True).click()


def rows(page, view: str = "score") -> list[list[str]]:
    return page.locator(f"#{view}-answer table tbody tr").evaluate_all(
        "rows => rows.map((row) => [...row.cells].map((cell) => cell.innerText.trim()))"
    )
