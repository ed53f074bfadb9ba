"""The driver: sends trials to workers, puts right what dies, keeps the store and those who watch up to date.

``asked``   what is asked of a run, who watches it, how it ended
``book``    the study in Optuna: what was begun, told, closed, is to be tried again
``settle``  puts right what a death left between Optuna and the store
``resume``  whether a results file and a plan belong together
``crew``    the workers: who is getting ready, who is idle, who has which trial
``loop``    one run from the first submitted trial to the last
"""

from ptydask.driver.contract import Observer, Outcome, RunOptions
from ptydask.driver.crew import Crew
from ptydask.driver.loop import run

__all__ = ["Crew", "Observer", "Outcome", "RunOptions", "run"]
