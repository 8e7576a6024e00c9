"""A session: everything from Locust's start to its exit, in the process that is started, the master or a worker.

LocalSession    Loading and Keeping: users, and the book of the run, in one process
MasterSession   Keeping only; batches come from workers
WorkerSession   Loading only; batches go to the master
"""
