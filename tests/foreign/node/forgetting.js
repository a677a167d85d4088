// KafkaJS keeps the beginning of an answer whose connection was cut, and takes what comes on the next connection for
// the rest of it: it then waits for ever, or ends at a number that it makes no sense of (tulios/kafkajs#715). Whoever
// requires this has connections that begin with nothing.
'use strict'

const Connection = require('kafkajs/src/network/connection')

const { connect } = Connection.prototype
Connection.prototype.connect = function () {
  if (!this.isConnected()) Object.assign(this, { chunks: [], bytesBuffered: 0, bytesNeeded: 4 })
  return connect.call(this)
}
