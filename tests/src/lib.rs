//! What the tests in `e2e/` and the bench share: how brokers are started that are not plain programs.

pub mod rabbitmq;

/// Debian's own Python: only that one has its packages.
pub const SYSTEM_PYTHON: &str = "/usr/bin/python3";

/// A forwarder of libzmq, for [`SYSTEM_PYTHON`]: the ten lines that everybody writes. Its arguments
/// are the ports of 127.0.0.1 where publishers come and where subscribers do.
pub const ZMQ_PROXY: &str = "\
import sys, zmq
context = zmq.Context()
publishers, subscribers = context.socket(zmq.XSUB), context.socket(zmq.XPUB)
publishers.bind('tcp://127.0.0.1:' + sys.argv[1])
subscribers.bind('tcp://127.0.0.1:' + sys.argv[2])
zmq.proxy(publishers, subscribers)
";
