// Reads a topic on KafkaJS, as ../README.md has it. usage: reader.js BOOTSTRAP TOPIC PARTITIONS FETCH_BYTES
'use strict'

const { Kafka, logLevel } = require('kafkajs')
require('./forgetting.js')

const [bootstrap, topic, , fetchBytes] = process.argv.slice(2)
const kafka = new Kafka({
  brokers: [bootstrap],
  logLevel: logLevel.NOTHING,
  // A request whose answer was cut off is waited for; 30 s by default.
  requestTimeout: 3000,
  retry: { initialRetryTime: 50, maxRetryTime: 300, retries: 100 },
})

/** Until its consumer gives up, as it does when a connection is cut at a bad moment. */
async function live() {
  // It reads in groups only, and begins again from what was committed when it has joined again.
  const consumer = kafka.consumer({
    groupId: `reader-${process.pid}`,
    sessionTimeout: 6000,
    heartbeatInterval: 500,
    maxWaitTimeInMs: 100,
    maxBytesPerPartition: Number(fetchBytes),
  })
  consumer.on(consumer.events.GROUP_JOIN, () => console.log('joined'))
  const gaveUp = new Promise((_, reject) => {
    consumer.on(consumer.events.CRASH, ({ payload }) => payload.restart || reject(payload.error))
  })
  try {
    await consumer.connect()
    await consumer.subscribe({ topics: [topic], fromBeginning: true })
    await consumer.run({
      eachMessage: async ({ partition, message }) => console.log(`record ${partition} ${message.offset}`),
    })
    await gaveUp
  } finally {
    await consumer.disconnect().catch(() => {})
  }
}

async function main() {
  process.on('unhandledRejection', failed => console.log('unhandled', String(failed)))
  for (;;) await live().catch(failed => console.log('anew', String(failed)))
}

main()
