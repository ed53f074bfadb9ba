"""The driver: sends trials to workers, puts right what dies, keeps the store and those who watch up to date.

``contract``       what is asked of a run, who watches it, how it ended
``comparability``  whether a results file and a plan belong together
``provenance``     what the results file says of where it comes from
``crew``           the workers: who is getting ready, who is idle, who has which trial
``optuna_study``   the study in Optuna: what was begun, told, closed, is to be tried again
``reconciler``     puts right what a death left between Optuna and the store
``run_progress``   how far a run has come, and telling those who watch
``loop``           one run from the first submitted trial to the last
"""
