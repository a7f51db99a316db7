// Writes corpus.json: what npm's @truto/replace-placeholders makes of many templates.
//
//     npm install --no-save @truto/replace-placeholders@1.0.11 && node make_corpus.mjs > corpus.json
//
// The templates are drawn by a generator with a fixed seed, so a second run writes the same file.
// What is left out, because the gateway differs there on purpose: values that hold placeholders or
// `$&`, names that JavaScript objects inherit, regular expressions as paths, numbers in a spelling
// that JavaScript would change. tests/templates/test_placeholders.py shows those one by one.

import replacePlaceholders from '@truto/replace-placeholders'

let state = 20240611
const random = () => {
  state = (state + 0x6d2b79f5) | 0
  let t = Math.imul(state ^ (state >>> 15), 1 | state)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296
}
const pick = (from) => from[Math.floor(random() * from.length)]
const chance = (share) => random() < share
const times = (most, make) => Array.from({ length: 1 + Math.floor(random() * most) }, make)

const contexts = {
  plain: {
    args: {
      user_id: 7, big: 9007199254740991, ratio: 1.25, negative: -3, zero: 0,
      flag: true, off: false, n: null, empty: '', blank: '  ', s: 'text', padded: '  12abc ',
      digits: '42', decimal: '3.5', hex: '0x1F', yes: 'true', no: ' false ', none: 'null',
      json: '{"k":[1,2]}', list: '[1,"2"]', broken: '{"k":', word: 'ünïcödé ☃ "quoted" \\ back',
      ids: [1, 2], mixed: [1, 'two', null, true, [3, null], { four: 4 }], nothing: [],
      obj: { a: 1, b: { c: [5, 6] } }, 'dash-ed': { 'x-y': 'z' }, 'a/b': 'slash', '': { '': 5 },
    },
    resources: {
      crm: { contacts: { id: 'c1', tags: ['x', 'y'], owner: { id: 12, name: null } } },
      'knowledge-base': { pages: { id: '99', children: [{ id: 1 }, { id: 2 }, { title: 't' }] } },
    },
    query: { limit: 10, filter: { status: 'open' } },
    more: { filter: { status: 'closed', since: 3 }, extra: [1], limit: 20 },
  },
  bare: { args: {}, resources: {} },
  list: { args: [{ id: 1, tags: ['a'] }, { id: 2, tags: [] }, { name: 'n', tags: ['b', 'c'] }] },
}

const paths = [
  'args.user_id', 'args.big', 'args.ratio', 'args.negative', 'args.zero', 'args.flag', 'args.off',
  'args.n', 'args.empty', 'args.blank', 'args.s', 'args.padded', 'args.digits', 'args.decimal',
  'args.hex', 'args.yes', 'args.no', 'args.none', 'args.json', 'args.list', 'args.broken',
  'args.word', 'args.ids', 'args.mixed', 'args.nothing', 'args.obj', 'args.obj.b', 'args.obj.b.c',
  'args.obj.b.c.1', 'args.dash-ed.x-y', 'args.a/b', 'args.', 'args..', '.args.s', 'args.ids.0',
  'args.ids.1', 'args.ids.2', 'args.ids.-1', 'args.ids.-7', 'args.ids.-0', 'args.ids.007',
  'args.ids.00', 'args.ids.length', 'args.s.length', 'args.obj.length', 'args.mixed.5.four',
  'args.mixed.4.0', 'args.ids.99999999999999999999', 'args.mixed.:', 'args.mixed.1:',
  'args.mixed.:-1', 'args.mixed.-2:', 'args.mixed.-0:', 'args.mixed.:-0', 'args.nothing.:',
  'resources.crm.contacts.id', 'resources.crm.contacts.tags', 'resources.crm.contacts.tags.1',
  'resources.crm.contacts.owner.name', 'resources.crm.contacts', 'resources.crm.leads.id',
  'resources.knowledge-base.pages.id', 'resources.knowledge-base.pages.children.:.title',
  'resources.knowledge-base.pages.children.-1.title', 'args.0.id', 'args.1.tags', 'args.:.name',
  'args.-1.tags.0', 'args.2.id', 'args', 'missing', 'args.missing', 'args.missing.deeper', '..',
  'args.s args.missing', 'args.missing args.s', 'args.n  args.s', 'args.1 args.0',
  'args.obj.z args.s args.obj.a', 'args.s.x args.ids.1 args.ids.0', 'query.limit', '0', '-1',
]
const casts = ['str', 'int', 'num', 'bool', 'json', 'any', 'null', 'undefined', 'ignore-empty-str']
const mistakes = ['integer', 'nullable', 'INT', 'string', 'x y']
const defaults = ['', '5', 'text', ' padded ', 'true', 'null', 'a|b', 'a/b', '-12', '0x10', '1.5', 'a.b', '-', 'a?b']
const around = ['', '', 'id-', ' ', '{', '}', '{{', '}}', '{{ ', '}} {{', '☃', '"', '\\', '\n', ':', '{{a{', '$', '%7B']

const mistaken = (template) => mistakes.some((name) => JSON.stringify(template).includes(':' + name))
const cast = () => {
  if (chance(0.01)) return pick(mistakes)
  return (chance(0.06) ? ' ' : '') + pick(casts) + (chance(0.06) ? ' ' : '')
}
const choice = () => {
  const path = pick(paths)
  const blank = chance(0.1) && !path.endsWith(':') ? pick([' ', '  ', '\t']) : ''
  const tail = chance(0.6) ? ':' + cast() + (chance(0.06) ? ':' + pick(casts) : '') : ''
  return blank + path + blank + tail
}
const placeholder = () => {
  const inside = times(chance(0.3) ? 3 : 1, choice).join('|')
  // The default's cast is not trimmed, unlike the others.
  const or = chance(0.25) ? '?:' + pick(defaults) + (chance(0.5) ? ':' + pick(casts) : '') : ''
  return `{{${inside}${or}}}`
}
const text = () => (chance(0.5) ? placeholder() : times(3, () => pick(around) + placeholder() + pick(around)).join(''))
const leaf = () => (chance(0.8) ? text() : pick([1, true, null, 'plain', [], {}, 'no {{ placeholder }']))
const merge = () => pick(['{{query:json}}', '{{more:json}}', '{{missing:json}}', '{{missing:json|more:json}}', '{{query}}', '{{args.obj:json}}'])
const tree = (depth) => {
  if (depth === 0 || chance(0.3)) return leaf()
  return chance(0.3) ? times(3, () => tree(depth - 1)) : object(depth)
}
const object = (depth) => {
  const made = {}
  for (const name of times(4, () => pick(['a', 'b', 'filter', 'limit', 'since', 'extra', 'status']))) made[name] = tree(depth - 1)
  if (chance(0.35)) made.$truto_merge = chance(0.3) ? times(3, merge) : merge()
  return made
}

const hostile = [
  '', '{{', '}}', '{{}}', '{{{}}}', '{{{args.s}}}', '{{{{args.s}}}}', '{{a{{args.s}}', '{{args.s}', '{args.s}}',
  '{{args.s}}}}', '{{args.*}}', '{{args.ids[0]}}', '{{args.s|}', "{{args['s']}}", '{{args.s;}}', '{{a,b}}', '{{a\\b}}',
  '{{é}}', '{{args.s\u00a0}}', '{{\u2003args.s}}', '{{args.s\u200b}}', '{{args.s:\u00a0int}}', '{{args.s:}}', '{{args.s::}}',
  '{{args.s::int}}', '{{args.s:-}}', '{{args.s?:}}', '{{args.missing?:}}', '{{args.missing?:?:x}}', '{{args.missing?:x?:y}}',
  '{{args.missing?x}}', '{{//}}', '{{a//}}', '{{args.s//}}', '{{...}}', '{{....}}', '{{args...}}', '{{a..b}}',
  '{{args.s} }', '{ {args.s}}', '{{args.s}}{{args.s}}{{args.user_id:int}}', '{{args.s}} {{args.missing}} {{args.s}}',
  '{{'.repeat(500), '}}'.repeat(500), '{{' + ' '.repeat(2000), '{{' + 'a.'.repeat(1000) + '}}', '{{' + 'a '.repeat(200) + '}}',
  '{{a'.repeat(500) + '}}', '{{args.missing' + '|args.missing'.repeat(100) + '|args.s}}', '{{args.s' + ':str'.repeat(100) + '}}',
]
const refused = ['{{ }}', '{{:int}}', '{{|args.s}}', '{{args.s|}}', '{{args.missing|?:5}}', '{{\t}}', '{{args.s: }}', '{{args.s:int int}}', '{{args.missing?:5: int}}', 'x {{  }} y']

const cases = []
const add = (context, template) => {
  const found = { context, template }
  try {
    const result = replacePlaceholders(template, structuredClone(contexts[context]))
    if (result === undefined) found.undefined = true
    else found.result = result
  } catch {
    found.throws = true
  }
  if (refused.includes(template) || mistaken(template)) found.mistake = true
  cases.push(found)
}
for (const context of Object.keys(contexts)) {
  for (const template of [...hostile, ...refused]) add(context, template)
}
for (const path of paths) for (const name of casts) add('plain', `{{${path}:${name}}}`)
while (cases.length < 2600) {
  add(chance(0.8) ? 'plain' : pick(Object.keys(contexts)), chance(0.6) ? text() : object(3))
}
console.log(JSON.stringify({ contexts }, null, 1).replace(/\n\}$/, ','))
console.log(' "cases": [\n' + cases.map((one) => '  ' + JSON.stringify(one)).join(',\n') + '\n ]\n}')
