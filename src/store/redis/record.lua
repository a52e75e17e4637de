-- All that is done with one session: in one step, by the server's clock.
--
-- KEYS: the session's hash; the sorted set of the names in its namespace.
-- ARGV: "load"; or "swap" or "delete", the session's name and the version expected ("": no record);
-- and for "swap" the new version, state, expires_at_ms, record and sealed part.
local session, names = KEYS[1], KEYS[2]
local what, name, expected = ARGV[1], ARGV[2], ARGV[3]
if what == 'load' then
  local found = redis.call('HMGET', session, 'version', 'state', 'expires_at_ms', 'record', 'sealed')
  return {redis.call('TIME'), found}
end
if (redis.call('HGET', session, 'version') or '') ~= expected then
  return 0
end
if what == 'delete' then
  redis.call('DEL', session)
  redis.call('ZREM', names, name)
  return 1
end
local state = ARGV[5]
redis.call('HSET', session, 'version', ARGV[4], 'state', state, 'expires_at_ms', ARGV[6],
  'record', ARGV[7], 'sealed', ARGV[8])
if state == 'forgotten' then
  redis.call('ZREM', names, name)
else
  redis.call('ZADD', names, 0, name)
end
return 1
