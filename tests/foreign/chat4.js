// Like chat.js, in the form of the textbook's fourth edition: a topic, and the text as a part of its own.
//
//   node chat4.js PUB_PORT SUB_PORT...

import readline from "node:readline";

import * as zmq from "zeromq";

const [pubPort, ...subPorts] = process.argv.slice(2);

const publisher = new zmq.Publisher();
await publisher.bind(`tcp://127.0.0.1:${pubPort}`);

const subscriber = new zmq.Subscriber();
subscriber.subscribe("chat_messages");
for (const port of subPorts) {
  subscriber.connect(`tcp://127.0.0.1:${port}`);
}

console.log("ready");

async function listen() {
  for await (const [, message] of subscriber) {
    console.log(message.toString());
  }
}

async function speak() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    await publisher.send(["chat_messages", line]);
  }
  process.exit(0);
}

await Promise.all([listen(), speak()]);
