// How the Node program reports: one line for each step, in the words of ../README.md.
'use strict'

const say = (...words) => console.log(words.map(word => String(word).replace(/\s+/g, ' ')).join(' '))

/** Says who runs, what is known not to work and why, and what the client does not have. */
function begin(client, version, needs, lacks) {
  say('client', client, version)
  for (const [step, what] of Object.entries(needs)) say('needs', step, what)
  for (const [step, why] of Object.entries(lacks)) say('step', step, 'unsupported', why)
}

/** Runs one step, says how it went, and gives what it gave. */
async function step(name, action) {
  try {
    const result = await action()
    say('step', name, 'ok')
    return result
  } catch (error) {
    say('step', name, 'failed', `${error.name}: ${error.type ?? ''} ${error.message}`)
  }
}

function check(holds, what) {
  if (!holds) throw new Error(what)
}

/** The values that were read; none may come twice. */
class Seen {
  values = new Set()
  twice = []
  deadline = Date.now() + 30_000

  add(value) {
    if (this.values.has(value)) this.twice.push(value)
    this.values.add(value)
  }

  /** Waits until `enough` holds, or the deadline. */
  async until(enough) {
    while (!enough() && Date.now() < this.deadline) await new Promise(resolve => setTimeout(resolve, 20))
  }

  expect(first, count) {
    check(this.twice.length === 0, `twice: ${this.twice[0]}`)
    for (let number = first; number < first + count; number++) {
      check(this.values.has(`value-${number}`), `${this.values.size} seen, missing value-${number}`)
    }
    check(this.values.size === count, `${this.values.size} seen, not ${count}`)
  }
}

module.exports = { Seen, begin, check, step }
