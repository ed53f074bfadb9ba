"""The driver: sends trials to workers, puts right what dies, keeps the store and those who watch up to date.

``prepare``        a file and what is said beside it become a run that can start
``execute``        a prepared run from its first worker to its one results file
``queue``          several studies on the same workers: when the next is opened, how each ended
``lending``        which of these studies has which worker
``contract``       what is asked of a run, who watches it, how it ended
``optuna_study``   the study in Optuna: what was begun, told, closed, is to be tried again
``reconciler``     puts right what a death left between Optuna and the store
``comparability``  whether a results file and a plan belong together
``provenance``     what the results file says of where it comes from
``crew``           the workers: who is getting ready, who is idle, who has which trial
``run_progress``   how far a run has come, and telling those who watch
``loop``           from the first submitted trial to the last
"""
