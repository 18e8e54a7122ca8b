// The textbook's chat over AMQP, without its WebSockets: every program publishes JSON on a fanout exchange,
// and has a queue of its own there.
//
//   node amqp.js AMQP_URL EXCHANGE
//
// Each line on stdin is published; each text heard is a line on stdout; `ready` comes first.

import readline from "node:readline";

import amqp from "amqplib";

const [url, exchange] = process.argv.slice(2);

const connection = await amqp.connect(url);
const channel = await connection.createChannel();
await channel.assertExchange(exchange, "fanout");
const { queue } = await channel.assertQueue(`chat_srv_${process.pid}`, { exclusive: true });
await channel.bindQueue(queue, exchange);
await channel.consume(
  queue,
  (message) => console.log(JSON.parse(message.content.toString()).text),
  { noAck: true },
);

console.log("ready");

for await (const text of readline.createInterface({ input: process.stdin })) {
  const data = JSON.stringify({ text, timestamp: Date.now() });
  channel.publish(exchange, "", Buffer.from(data));
}
process.exit(0);
