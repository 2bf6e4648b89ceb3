"""AI agents as data: how each is started, what it says, and what its end means.

Nothing here starts a process, asks a clock or reads any file but the table of adapters. The
runner on the host brings lines and facts and acts on what comes back, so that every rule about
an agent's behaviour is a value that a test compares.

adapters     one agent's command line, as data; built in, extended by the user
order        what the runner is told to do
parsers      an agent's lines -> events, one file for each format
events       what agents say, whichever it is
summaries    events -> what is known of the run so far
classify     a run's end -> an answer with its error class
limits       when a usage limit resets
policy       an answer -> what becomes of the job
answers      the one schema of results
render       an event -> lines that a person reads
"""
