// The scenario of ../README.md on KafkaJS. usage: kafkajs.js BOOTSTRAP PREFIX
'use strict'

const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = require('kafkajs')
const { AclOperationTypes, AclPermissionTypes, AclResourceTypes, ResourcePatternTypes } = require('kafkajs')
const SnappyCodec = require('kafkajs-snappy')
const lz4 = require('lz4js')
const zstd = require('@bokuweb/zstd-wasm')
const { Seen, begin, check, step } = require('./steps')

const NEEDS = {}
const LACKS = {
  'record-errors': 'a batch fails as a whole',
  'delete-group-offsets': 'no such call',
  'consumer-protocol': 'classic groups only',
}

const [bootstrap, prefix] = process.argv.slice(2)
const topic = `${prefix}-none`
const group = `${prefix}-group`
const fromKlamm = `${prefix}-from-klamm`

// KafkaJS has gzip; its documentation says how to bring the other codecs.
CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async encoder => Buffer.from(lz4.compress(encoder.buffer)),
  decompress: async buffer => Buffer.from(lz4.decompress(buffer)),
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => Buffer.from(zstd.compress(encoder.buffer, 3)),
  decompress: async buffer => Buffer.from(zstd.decompress(buffer)),
})

const kafka = new Kafka({
  brokers: [bootstrap],
  logLevel: logLevel.NOTHING,
  retry: { retries: 3, initialRetryTime: 100, maxRetryTime: 1000 },
  requestTimeout: 10_000,
})
const admin = kafka.admin()

const records = (first, count) =>
  Array.from({ length: count }, (_, index) => ({ key: `key-${first + index}`, value: `value-${first + index}` }))

async function produce(to, messages, options = {}, settings = {}) {
  const producer = kafka.producer({ allowAutoTopicCreation: true, ...settings })
  await producer.connect()
  try {
    await producer.send({ topic: to, messages, ...options })
  } finally {
    await producer.disconnect()
  }
}

/** A running member of a group; `seen` collects what it reads, `owned` is how many partitions it has. */
async function join(name, subscription, seen) {
  const consumer = kafka.consumer({
    groupId: name,
    sessionTimeout: 6000,
    heartbeatInterval: 500,
    rebalanceTimeout: 6000,
    metadataMaxAge: 1000,
    maxWaitTimeInMs: 200,
  })
  const member = { consumer, owned: 0 }
  consumer.on(consumer.events.GROUP_JOIN, event => {
    member.owned = (event.payload.memberAssignment[topic] ?? []).length
  })
  await consumer.connect()
  await consumer.subscribe({ topics: [subscription], fromBeginning: true })
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ topic, partition, message }) => {
      seen.add(message.value.toString())
      // Committed one by one: what moves to another member must not be read there again.
      await consumer.commitOffsets([{ topic, partition, offset: String(Number(message.offset) + 1) }])
    },
  })
  return member
}

async function readAll(name, subscription) {
  const seen = new Seen()
  const { consumer } = await join(name, subscription, seen)
  await seen.until(() => seen.values.size >= 500)
  await consumer.disconnect()
  seen.expect(0, 500)
}

async function groupOfTwo() {
  const seen = new Seen()
  const members = await Promise.all([join(group, topic, seen), join(group, topic, seen)])
  const settled = () => members.every(member => member.owned === 2)
  await seen.until(() => seen.values.size >= 100 && settled())
  check(settled(), `partitions by member: ${members.map(member => member.owned)}`)
  seen.expect(0, 100)
  return members
}

async function committed() {
  const [{ partitions }] = await admin.fetchOffsets({ groupId: group, topics: [topic] })
  return partitions.reduce((sum, partition) => sum + Number(partition.offset), 0)
}

async function commit(members) {
  await Promise.all(members.map(member => member.consumer.disconnect()))
  const sum = await committed()
  check(sum === 100, `committed: ${sum}`)
}

async function resume() {
  await produce(topic, records(100, 10))
  const seen = new Seen()
  const member = await join(group, topic, seen)
  await seen.until(() => seen.values.size >= 10)
  seen.expect(100, 10)
  return member
}

/** A transaction for each number; that of the largest is aborted. */
async function transactions(name, numbers, work) {
  const producer = kafka.producer({ transactionalId: name, maxInFlightRequests: 1, idempotent: true })
  await producer.connect()
  try {
    for (const number of numbers) {
      const transaction = await producer.transaction()
      await work(transaction, number)
      await (number === Math.max(...numbers) ? transaction.abort() : transaction.commit())
    }
  } finally {
    await producer.disconnect()
  }
}

async function transaction() {
  const to = `${prefix}-tx`
  await transactions(to, [0, 6, 3], (transaction, first) =>
    transaction.send({ topic: to, messages: records(first, 3) }))
  const seen = new Seen()
  // It reads committed records where it is not told otherwise.
  const { consumer } = await join(`${prefix}-tx-reader`, to, seen)
  await seen.until(() => seen.values.size >= 6)
  await consumer.disconnect()
  seen.expect(0, 6)
}

async function transactionOffsets() {
  const name = `${prefix}-tx-offsets`
  await transactions(name, [2, 5, 3], (transaction, offset) =>
    transaction.sendOffsets({
      consumerGroupId: name,
      topics: [{ topic, partitions: [{ partition: 0, offset: String(offset) }] }],
    }))
  const seen = new Seen()
  let offset
  while (offset !== '3' && Date.now() < seen.deadline) {
    const [found] = await admin.fetchOffsets({ groupId: name, topics: [topic] })
    offset = found.partitions.find(one => one.partition === 0)?.offset
    check(offset !== '5', 'an aborted offset is there')
  }
  check(offset === '3', `committed: ${offset}`)
}

async function administration() {
  const resource = { type: ConfigResourceTypes.TOPIC, name: topic }
  const configEntries = [{ name: 'retention.ms', value: '1000' }]
  await step('describe-cluster', async () => {
    const { brokers } = await admin.describeCluster()
    check(brokers.length === 1, `brokers: ${brokers}`)
  })
  await step('describe-configs', () => admin.describeConfigs({ resources: [resource] }))
  await step('alter-configs', () => admin.alterConfigs({ resources: [{ ...resource, configEntries }] }))
  await step('create-partitions', () => admin.createPartitions({ topicPartitions: [{ topic, count: 8 }] }))
  await step('delete-records', () => admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '1' }] }))
  await step('delete-group', () => admin.deleteGroups([group]))
  await step('describe-acls', async () => {
    const everything = {
      resourceType: AclResourceTypes.ANY,
      resourcePatternType: ResourcePatternTypes.ANY,
      operation: AclOperationTypes.ANY,
      permissionType: AclPermissionTypes.ANY,
    }
    const told = await admin.describeAcls(everything).then(() => 'nothing', (error) => error.type)
    check(told === 'SECURITY_DISABLED', `there are no rules, and it was told ${told}`)
  })
}

async function main() {
  await zstd.init()
  begin('KafkaJS', require('kafkajs/package.json').version, NEEDS, LACKS)
  await step('connect', () => admin.connect())
  await step('create-topic', () => admin.createTopics({ topics: [{ topic, numPartitions: 4 }] }))
  await step('metadata-all', async () => {
    const topics = await admin.listTopics()
    check(topics.includes(topic) && topics.includes(fromKlamm), `topics: ${topics}`)
  })
  await step('metadata-one', async () => {
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
    check(topics.length === 1 && topics[0].partitions.length === 4, 'not four partitions')
  })
  const codecs = { none: 'None', gzip: 'GZIP', snappy: 'Snappy', lz4: 'LZ4', zstd: 'ZSTD' }
  for (const [codec, name] of Object.entries(codecs)) {
    const compression = CompressionTypes[name]
    await step(`produce-${codec}`, () => produce(`${prefix}-${codec}`, records(0, 100), { compression }))
  }
  for (const [acks, number] of Object.entries({ 0: 0, 1: 1, all: -1 })) {
    await step(`acks-${acks}`, () => produce(`${prefix}-acks-${acks}`, records(0, 10), { acks: number }))
  }
  const idempotent = { idempotent: true, maxInFlightRequests: 1 }
  await step('idempotence', () => produce(`${prefix}-idempotence`, records(0, 10), {}, idempotent))
  await step('list-offsets', async () => {
    const ends = await admin.fetchTopicOffsets(topic)
    check(ends.reduce((sum, end) => sum + Number(end.high), 0) === 100, `ends: ${JSON.stringify(ends)}`)
  })
  await step('read-klamm', () => readAll(`${prefix}-reader`, fromKlamm))
  await step('subscribe-pattern', () => readAll(`${prefix}-pattern`, new RegExp(`^${prefix}-from-.*`)))
  const members = await step('group-of-two', groupOfTwo)
  await step('commit', () => commit(members))
  const member = await step('resume', resume)
  await step('list-groups', async () => {
    const { groups } = await admin.listGroups()
    check(groups.some(one => one.groupId === group), `groups: ${JSON.stringify(groups)}`)
  })
  await step('describe-group', async () => {
    const { groups: [described] } = await admin.describeGroups([group])
    check(described.state === 'Stable' && described.members.length === 1, `described: ${JSON.stringify(described)}`)
  })
  await member?.consumer.disconnect()
  await step('group-offsets', async () => {
    const sum = await committed()
    check(sum === 110, `committed: ${sum}`)
  })
  await step('delete-topic', async () => {
    await admin.deleteTopics({ topics: [`${prefix}-acks-all`] })
    check(!(await admin.listTopics()).includes(`${prefix}-acks-all`), 'still listed')
  })
  await step('transaction', transaction)
  await step('transaction-offsets', transactionOffsets)
  await administration()
  await admin.disconnect()
}

main()
