"""`valueflow steer-prompt`: the texts that steer a model towards or away from a value."""

from argparse import Namespace

from valueflow.console import say
from valueflow.service.steering import steering_at


async def steer_prompt(args: Namespace) -> None:
    """Write the texts of a value at a level, one a line, or one of them; nothing is generated.

    Raises:
        InputError: there is no such value, level or variant.
    """
    steering = steering_at(args.value, args.level, args.variant)
    if args.json:
        say(steering.model_dump_json())
        return
    for row in steering.wordings:
        say(row.text)
