// A program of another make: libzmq under Node.js. It publishes the plain form, `chat <text>`, on one
// port and subscribes to others.
//
//   node chat.js PUB_PORT SUB_PORT...
//
// Each line on stdin is published; each text heard is a line on stdout; `ready` comes first.

import readline from "node:readline";

import * as zmq from "zeromq";

const [pubPort, ...subPorts] = process.argv.slice(2);

const publisher = new zmq.Publisher();
await publisher.bind(`tcp://127.0.0.1:${pubPort}`);

const subscriber = new zmq.Subscriber();
subscriber.subscribe("chat");
for (const port of subPorts) {
  subscriber.connect(`tcp://127.0.0.1:${port}`);
}

console.log("ready");

async function listen() {
  for await (const [frame] of subscriber) {
    const text = frame.toString();
    console.log(text.slice(text.indexOf(" ") + 1));
  }
}

async function speak() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    await publisher.send(`chat ${line}`);
  }
  process.exit(0);
}

await Promise.all([listen(), speak()]);
