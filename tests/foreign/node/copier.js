// Copies records in transactions on KafkaJS, as ../README.md has it.
// usage: copier.js BOOTSTRAP GROUP TRANSACTIONAL_ID INPUT OUTPUT SEED
//
// KafkaJS does not tell the group's coordinator which member commits (KIP-447), so each partition has a transactional
// id of its own: who is given the partition takes it over and fences whoever had it, and reads on from what was
// committed.
'use strict'

const { Kafka, logLevel } = require('kafkajs')
require('./forgetting.js')

const [bootstrap, group, transactionalId, input, output, seed] = process.argv.slice(2)
const say = (...words) => console.log(words.join(' ').replace(/\s+/g, ' '))

let state = Number(BigInt(seed) % 2147483646n) + 1
/** A number below `bound`. */
function below(bound) {
  state = (state * 48271) % 2147483647
  return state % bound
}

const kafka = new Kafka({
  clientId: transactionalId,
  brokers: [bootstrap],
  logLevel: logLevel.NOTHING,
  retry: { initialRetryTime: 50, maxRetryTime: 300, retries: 100 },
})
const admin = kafka.admin()
/** Of the partitions that were taken over: the producer of each. */
let producers = new Map()

/** Fences whoever had the partition, and goes on from what was committed. */
async function takeOver(consumer, partition) {
  const producer = kafka.producer({
    transactionalId: `${group}-${partition}`,
    transactionTimeout: 3000,
    idempotent: true,
    maxInFlightRequests: 1,
  })
  producers.set(partition, producer)
  await producer.connect()
  // The first one begins with the fencing.
  await (await producer.transaction()).abort()
  const [found] = await admin.fetchOffsets({ groupId: group, topics: [input] })
  const committed = found.partitions.find(one => one.partition === partition)?.offset ?? '-1'
  if (producers.get(partition) === producer) {
    consumer.seek({ topic: input, partition, offset: committed === '-1' ? '0' : committed })
  }
}

const drop = producer => producer.disconnect().catch(() => {})

function giveUp(partition) {
  const producer = producers.get(partition)
  producers.delete(partition)
  if (producer) drop(producer)
}

async function copy(producer, partition, messages) {
  const transaction = await producer.transaction()
  try {
    await transaction.send({ topic: output, messages: messages.map(({ key, value }) => ({ key, value })) })
    const offset = String(BigInt(messages[messages.length - 1].offset) + 1n)
    await transaction.sendOffsets({
      consumerGroupId: group,
      topics: [{ topic: input, partitions: [{ partition, offset }] }],
    })
    if (below(10) === 0) throw new Error('by chance')
    await transaction.commit()
    say('commit', messages.length)
  } catch (failed) {
    await transaction.abort().catch(() => {})
    throw failed
  }
}

async function eachBatch(consumer, { batch, resolveOffset, heartbeat, isRunning, isStale }) {
  const partition = batch.partition
  for (let done = 0; done < batch.messages.length && isRunning() && !isStale(); ) {
    const producer = producers.get(partition)
    try {
      if (!producer) return await takeOver(consumer, partition)
      const messages = batch.messages.slice(done, done + 1 + below(30))
      await copy(producer, partition, messages)
      if (producers.get(partition) !== producer) return
      done += messages.length
      resolveOffset(messages[messages.length - 1].offset)
    } catch (failed) {
      say('abort', failed.name, failed.message)
      giveUp(partition)
    }
    // Says when the group is rebalancing, and is nothing to be caught here.
    await heartbeat()
  }
}

/** Until its consumer fails. */
async function live() {
  const consumer = kafka.consumer({
    groupId: group,
    sessionTimeout: 2000,
    heartbeatInterval: 200,
    rebalanceTimeout: 4000,
    maxWaitTimeInMs: 100,
    // It begins anew where this one ends.
    retry: { initialRetryTime: 50, maxRetryTime: 300, retries: 100, restartOnFailure: async () => false },
  })
  const crashed = new Promise(resolve => consumer.on(consumer.events.CRASH, ({ payload }) => resolve(payload.error)))
  consumer.on(consumer.events.GROUP_JOIN, () => {
    // It reads on from offsets that it has just asked for, and a transaction may have been open meanwhile.
    const before = producers
    producers = new Map()
    before.forEach(drop)
  })
  try {
    await consumer.connect()
    await consumer.subscribe({ topics: [input], fromBeginning: true })
    await consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: false,
      eachBatch: given => eachBatch(consumer, given),
    })
    throw await crashed
  } finally {
    await consumer.disconnect().catch(() => {})
  }
}

async function main() {
  process.on('unhandledRejection', failed => say('unhandled', failed))
  await admin.connect()
  for (;;) await live().catch(failed => say('anew', failed.name, failed.message))
}

main()
