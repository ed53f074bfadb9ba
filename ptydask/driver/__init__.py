"""The driver: sends trials to workers, puts right what dies, keeps the store and those who watch up to date.

``prepare``        a file and what is said beside it become a run that can start
``guesses``        what a plan does with guesses from its patterns
``earlier``        earlier studies that a plan starts from; ``earlier_points``, what it takes of them; ``microscope``,
                   which are of the same microscope settings
``execute``        a prepared run from its first worker to its one results file
``stages``         a study in stages, each such a run; ``stage_order`` and ``trial_start``, what one has of those before
``conduct``        either of the two
``queue``          several studies on the same workers: when the next is opened, how each ended
``lending``        which of these studies has which worker; ``succession``, what each takes of those before it
``confirmation``   the best trials of a study once more, with other seeds
``contract``       what is asked of a run, who watches it, how it ended
``optuna_study``   the study in Optuna: what was begun, told, closed, is to be tried again
``reconciler``     puts right what a death left between Optuna and the store
``comparability``  whether a results file and a plan belong together
``provenance``     what the results file says of where it comes from
``crew``           the workers: who is getting ready, who is idle, who has which trial
``run_progress``   how far a run has come, and telling those who watch
``loop``           from the first submitted trial to the last
``settlement``     what ends a study before its trials do
``cost``           what a run takes; ``stillness``, when it is stuck; ``notification``, who is told
"""
