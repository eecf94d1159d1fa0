import random

import pytest
from search.made import result

from components.contracts.trial import Asked
from components.search import study as studies
from components.search.halving import going_on


@pytest.fixture
def random_search():
    """(sweep, seed) -> the rounds of a search whose values are random: (trials after it, what it had trained)."""

    def rounds(sweep, seed):
        draw, trials, last = random.Random(seed), {}, sweep.rungs - 1
        for number in range(sweep.rounds):
            standing = [trials[key] for key in sorted(trials)]
            fresh = sweep.fresh(number)
            going = going_on(standing, sweep, idle=not fresh) + [(len(trials) + place, 0) for place in range(fresh)]
            for trial, rung in going:
                asked = Asked(trial=trial, rung=rung, share=1, candidate="esmm", params="{}", config="{}")
                value = None if draw.random() < 0.1 else draw.random()
                found = result(asked, value)
                trials[trial] = studies.standing(trials.get(trial) or studies.new(trial, {}, {}), found, last)
            yield [trials[key] for key in sorted(trials)], going

    return rounds
