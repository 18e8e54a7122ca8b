//! What stands at the end of `--help`.

pub(super) const AFTER_HELP: &str = "\
When it is ready it prints one line on stdout, for example
  {\"ready\":\"chatnode\",\"origin\":\"k3f7q2m7xa\",\"http\":\"http://127.0.0.1:8080\",\"pub\":\"tcp://127.0.0.1:41213\"}
SIGTERM, SIGINT or SIGHUP (but with --mesh-secret) drains it and ends it with exit code 0, in three
seconds at the most.
Exit code 1: it broke, or something hung when it was to end; 2: bad usage.

Try it:
  registry &
  chatnode --http 8080 &
  chatnode &                           # a second node on a free port
On several machines, the same on each, with one file that `chatnode secret > FILE` made:
  registry --http 0.0.0.0:7171 --mesh-secret FILE
  chatnode --http 0.0.0.0:8080 --registry tls://10.0.0.1:7171 --mesh-secret FILE
By a broker, without a registry:
  chatnode --http 8080 --bus redis://127.0.0.1
In containers, where a name leads to all of them, with the secret in a file of each:
  chatnode --http 0.0.0.0:8080 --discover dns+chat:8080 --mesh-secret FILE
Kept by RabbitMQ besides, and one node that writes to disk what it keeps:
  chatnode --http 8080 --keep amqp://127.0.0.1
  chatnode --http 8081 --keep amqp://127.0.0.1 --data ./archive
On several machines of a network where every program is trusted:
  chatnode --http 0.0.0.0:8080 --registry http://10.0.0.1:7171 --insecure-mesh
Static mode, by ports typed by hand and without a registry. It is how a textbook's chapter on
publish/subscribe joins its chat servers; one line for each of three terminals:
  chatnode --http 8080 --pub 5000 --sub 5001 --sub 5002
  chatnode --http 8081 --pub 5001 --sub 5000 --sub 5002
  chatnode --http 8082 --pub 5002 --sub 5000 --sub 5001";
