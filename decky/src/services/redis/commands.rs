//! What redis answers to each command.

use std::fmt::Write as _;
use std::sync::PoisonError;

use time::OffsetDateTime;

use super::Redis;
use super::store::{Full, MAX_BYTES, Store};
use crate::budget::Budget;
use crate::pattern;
use crate::serve::Session;

/// Most keys that one answer lists.
const MAX_LISTED: usize = 1000;
/// Longest pattern that selects anything.
const MAX_PATTERN: usize = 1024;
/// Most steps of selecting by one pattern: an ordinary one takes about one for each byte of a key.
const MAX_STEPS: usize = 2 * MAX_BYTES;

/// What a connection has said so far.
pub(super) struct Connection {
    inside: bool,
    database: u8,
    name: Vec<u8>,
    address: String,
    number: u64,
}

impl Connection {
    pub(super) fn new(inside: bool, session: &Session) -> Self {
        // Version 7 ids grow with time, as the numbers of redis' clients do.
        let number = session.id().uuid().as_u128() >> 80;
        Self {
            inside,
            database: 0,
            name: Vec::new(),
            address: session.source().to_string(),
            number: u64::try_from(number).unwrap_or(0) % 100_000,
        }
    }
}

/// What a command does beside its answer.
pub(super) enum Effect {
    None,
    Auth {
        username: Vec<u8>,
        password: Vec<u8>,
        accepted: bool,
    },
    Close,
}

fn simple(text: &str) -> Vec<u8> {
    format!("+{text}\r\n").into_bytes()
}

fn error(text: &str) -> Vec<u8> {
    format!("-{text}\r\n").into_bytes()
}

fn integer(number: usize) -> Vec<u8> {
    format!(":{number}\r\n").into_bytes()
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn nil() -> Vec<u8> {
    b"$-1\r\n".to_vec()
}

fn array<'a>(items: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let items: Vec<Vec<u8>> = items.into_iter().map(bulk).collect();
    let mut out = format!("*{}\r\n", items.len()).into_bytes();
    out.extend(items.concat());
    out
}

/// Words of a client in an error: no line feed may leave the answer's line.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(128)]).replace(['\r', '\n'], " ")
}

/// What one pattern selects. A pattern that is too long, or that takes too many steps, selects
/// nothing more: redis, too, gives such patterns up and answers as if nothing had matched.
struct Selection<'p> {
    pattern: &'p [u8],
    budget: Budget,
}

impl<'p> Selection<'p> {
    fn by(pattern: &'p [u8]) -> Self {
        let steps = if pattern.len() > MAX_PATTERN {
            0
        } else {
            MAX_STEPS
        };
        Self {
            pattern,
            budget: Budget::of(steps),
        }
    }

    fn has(&self, name: &[u8]) -> bool {
        pattern::matches(self.pattern, name, &self.budget)
    }
}

/// Runs a command.
pub(super) fn run(
    redis: &Redis,
    connection: &mut Connection,
    words: &[Vec<u8>],
    now: OffsetDateTime,
) -> (Vec<u8>, Effect) {
    let Some((name, args)) = words.split_first() else {
        return (Vec::new(), Effect::None);
    };
    let name = String::from_utf8_lossy(name).to_ascii_uppercase();
    let new = !redis.facts.release.redis.starts_with(['3', '4', '5']);
    match (name.as_str(), args) {
        ("AUTH", [] | [_, _, _, ..]) => return (arity("auth"), Effect::None),
        ("AUTH", args) => return auth(redis, connection, args, new),
        ("QUIT", _) => return (simple("OK"), Effect::Close),
        _ => {}
    }
    if !connection.inside {
        return (error("NOAUTH Authentication required."), Effect::None);
    }
    (
        answer(redis, connection, &name, args, words, now, new),
        Effect::None,
    )
}

fn auth(
    redis: &Redis,
    connection: &mut Connection,
    args: &[Vec<u8>],
    new: bool,
) -> (Vec<u8>, Effect) {
    let (username, password) = match args {
        [username, password] => (username.clone(), password.clone()),
        args => (
            b"default".to_vec(),
            args.first().cloned().unwrap_or_default(),
        ),
    };
    let accepted = redis
        .password
        .as_ref()
        .is_some_and(|wanted| username == b"default" && wanted.as_bytes() == password.as_slice());
    connection.inside |= accepted;
    let reply = match (&redis.password, accepted, new) {
        (_, true, _) => simple("OK"),
        (None, false, true) if args.len() == 1 => error(
            "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
        ),
        (None, false, false) => error("ERR Client sent AUTH, but no password is set"),
        (_, false, true) => error("WRONGPASS invalid username-password pair or user is disabled."),
        (Some(_), false, false) => error("ERR invalid password"),
    };
    (
        reply,
        Effect::Auth {
            username,
            password,
            accepted,
        },
    )
}

fn arity(name: &str) -> Vec<u8> {
    error(&format!(
        "ERR wrong number of arguments for '{name}' command"
    ))
}

fn answer(
    redis: &Redis,
    connection: &mut Connection,
    name: &str,
    args: &[Vec<u8>],
    words: &[Vec<u8>],
    now: OffsetDateTime,
    new: bool,
) -> Vec<u8> {
    let mut store = redis.store.lock().unwrap_or_else(PoisonError::into_inner);
    let full = || error("OOM command not allowed when used memory > 'maxmemory'.");
    // Other databases than the first are empty: nothing that clients store is lost by that.
    let here = connection.database == 0;
    match (name, args) {
        ("PING", []) => simple("PONG"),
        ("PING" | "ECHO", [text]) => bulk(text),
        ("INFO", _) => {
            let section = args.first().map_or("default".to_owned(), |section| {
                shown(section).to_lowercase()
            });
            bulk(info(redis, &store, &section, now).as_bytes())
        }
        ("SELECT", [number]) => match std::str::from_utf8(number)
            .ok()
            .and_then(|text| text.parse().ok())
        {
            Some(number @ 0..=15) => {
                connection.database = number;
                simple("OK")
            }
            Some(_) => error("ERR DB index is out of range"),
            None => error("ERR value is not an integer or out of range"),
        },
        ("GET", [key]) => store.get(key).filter(|_| here).map_or_else(nil, bulk),
        ("SET", [key, value, ..]) => match store.set(key, value) {
            Ok(()) => simple("OK"),
            Err(Full) => full(),
        },
        ("SETNX", [key, value]) => {
            let fresh = store.get(key).is_none() && store.set(key, value).is_ok();
            integer(usize::from(fresh))
        }
        ("APPEND", [key, value]) => match store.append(key, value) {
            Ok(length) => integer(length),
            Err(Full) => full(),
        },
        ("STRLEN", [key]) => integer(store.get(key).map_or(0, <[u8]>::len)),
        ("DEL" | "UNLINK", [_, ..]) => integer(args.iter().filter(|key| store.delete(key)).count()),
        ("EXISTS", [_, ..]) => integer(args.iter().filter(|key| store.get(key).is_some()).count()),
        ("TYPE", [key]) => simple(if store.get(key).is_some() {
            "string"
        } else {
            "none"
        }),
        ("TTL" | "PTTL", [key]) => {
            if store.get(key).is_some() {
                b":-1\r\n".to_vec()
            } else {
                b":-2\r\n".to_vec()
            }
        }
        ("EXPIRE" | "PEXPIRE" | "PERSIST", [key, ..]) => {
            integer(usize::from(store.get(key).is_some()))
        }
        ("DBSIZE", []) => integer(if here { store.len() } else { 0 }),
        ("KEYS", [pattern]) => {
            let selection = Selection::by(pattern);
            let keys = store.keys().filter(|key| here && selection.has(key));
            array(keys.take(MAX_LISTED))
        }
        ("SCAN", [_, ..]) => {
            let keys = array(store.keys().filter(|_| here).take(MAX_LISTED));
            [b"*2\r\n$1\r\n0\r\n".to_vec(), keys].concat()
        }
        ("RANDOMKEY", []) => store.keys().next().map_or_else(nil, bulk),
        ("FLUSHALL" | "FLUSHDB", _) => {
            if here || name == "FLUSHALL" {
                store.clear();
            }
            simple("OK")
        }
        ("CONFIG", [what, rest @ ..]) => match (what.to_ascii_uppercase().as_slice(), rest) {
            (b"GET", [pattern, ..]) => {
                let pattern = pattern.to_ascii_lowercase();
                let selection = Selection::by(&pattern);
                let found = store
                    .settings()
                    .filter(|(name, _)| selection.has(name.as_bytes()))
                    .flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
                array(found)
            }
            (b"SET", [name, value, ..]) => {
                let (name, value) = (shown(name).to_lowercase(), shown(value));
                if store.configure(&name, &value).is_ok() {
                    simple("OK")
                } else {
                    full()
                }
            }
            (b"REWRITE" | b"RESETSTAT", _) => simple("OK"),
            _ => error(
                "ERR Unknown subcommand or wrong number of arguments for 'config'. Try CONFIG HELP.",
            ),
        },
        ("COMMAND", [what, ..]) if what.eq_ignore_ascii_case(b"count") => {
            integer(if new { 240 } else { 200 })
        }
        ("COMMAND", _) => b"*0\r\n".to_vec(),
        ("CLIENT", [what, rest @ ..]) => client(connection, what, rest),
        ("HELLO", _) => error("NOPROTO unsupported protocol version"),
        ("SAVE", []) => simple("OK"),
        ("BGSAVE", _) => simple("Background saving started"),
        ("BGREWRITEAOF", _) => simple("Background append only file rewriting started"),
        ("LASTSAVE", []) => integer(usize::try_from(now.unix_timestamp() - 1800).unwrap_or(0)),
        ("SLAVEOF" | "REPLICAOF", [_, _]) => simple("OK"),
        ("MODULE", [what, ..]) if what.eq_ignore_ascii_case(b"load") => {
            error("ERR Error loading the extension. Please check the server logs.")
        }
        ("MODULE", [what, ..]) if what.eq_ignore_ascii_case(b"list") => b"*0\r\n".to_vec(),
        ("MODULE", [_, ..]) => error("ERR Error unloading module: no such module with that name"),
        ("ROLE", []) => b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n".to_vec(),
        ("TIME", []) => {
            let (seconds, micros) = (
                now.unix_timestamp().to_string(),
                now.microsecond().to_string(),
            );
            array([seconds.as_bytes(), micros.as_bytes()])
        }
        ("SHUTDOWN", _) => error("ERR Errors trying to SHUTDOWN. Check logs."),
        ("EVAL" | "EVALSHA" | "SCRIPT", _) => {
            error("NOSCRIPT No matching script. Please use EVAL.")
        }
        (
            "ECHO" | "SELECT" | "GET" | "SET" | "SETNX" | "APPEND" | "STRLEN" | "DEL" | "UNLINK"
            | "EXISTS" | "TYPE" | "TTL" | "PTTL" | "EXPIRE" | "PEXPIRE" | "PERSIST" | "DBSIZE"
            | "KEYS" | "SCAN" | "RANDOMKEY" | "CONFIG" | "CLIENT" | "SLAVEOF" | "REPLICAOF"
            | "MODULE" | "PING" | "SAVE" | "LASTSAVE" | "ROLE" | "TIME",
            _,
        ) => arity(&name.to_lowercase()),
        _ => unknown(words, new, redis.facts.release.redis),
    }
}

fn unknown(words: &[Vec<u8>], new: bool, version: &str) -> Vec<u8> {
    let quote = if new && !version.starts_with('6') {
        '\''
    } else {
        '`'
    };
    let close = if quote == '`' { '`' } else { '\'' };
    let mut text = format!(
        "ERR unknown command {quote}{}{close}, with args beginning with: ",
        shown(&words[0])
    );
    for word in words[1..].iter().take(8) {
        write!(
            text,
            "{quote}{}{close}{}",
            shown(word),
            if quote == '`' { ", " } else { " " }
        )
        .ok();
    }
    error(&text)
}

fn client(connection: &mut Connection, what: &[u8], rest: &[Vec<u8>]) -> Vec<u8> {
    match (what.to_ascii_uppercase().as_slice(), rest) {
        (b"SETNAME", [name]) => {
            connection.name = name.iter().copied().filter(u8::is_ascii_graphic).take(64).collect();
            simple("OK")
        }
        (b"GETNAME", []) if connection.name.is_empty() => nil(),
        (b"GETNAME", []) => bulk(&connection.name),
        (b"ID", []) => format!(":{}\r\n", connection.number).into_bytes(),
        (b"LIST" | b"INFO", _) => bulk(
            format!(
                "id={} addr={} fd=8 name={} age=2 idle=0 flags=N db={} sub=0 psub=0 multi=-1 qbuf=26 qbuf-free=32742 obl=0 oll=0 omem=0 events=r cmd=client\n",
                connection.number, connection.address, String::from_utf8_lossy(&connection.name), connection.database
            )
            .as_bytes(),
        ),
        (b"SETINFO", _) | (b"NO-EVICT", _) | (b"REPLY", _) => simple("OK"),
        _ => error(&format!("ERR Unknown subcommand or wrong number of arguments for '{}'. Try CLIENT HELP.", shown(what))),
    }
}

fn info(redis: &Redis, store: &Store, section: &str, now: OffsetDateTime) -> String {
    let facts = &redis.facts;
    let release = facts.release;
    let all = matches!(section, "default" | "all" | "everything");
    let mut text = String::new();
    let mut add = |name: &str, lines: String| {
        if all || section == name.to_lowercase() {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            text.push_str(&format!("# {name}\r\n"));
            for line in lines.lines() {
                text.push_str(line);
                text.push_str("\r\n");
            }
        }
    };
    // The daemon starts with the machine.
    let up = (facts.uptime(now).whole_seconds() - 14).max(1);
    let pid = 640 + facts.seed.pick("pid redis", 400);
    let memory = 870_000 + facts.seed.pick("redis memory", 90_000) + store.used() as u64;
    add(
        "Server",
        format!(
            "redis_version:{}\nredis_git_sha1:00000000\nredis_git_dirty:0\nredis_build_id:{}\nredis_mode:standalone\nos:{} {} {}\narch_bits:64\nmultiplexing_api:epoll\natomicvar_api:c11-builtin\ngcc_version:{}\nprocess_id:{pid}\nrun_id:{}\ntcp_port:6379\nuptime_in_seconds:{up}\nuptime_in_days:{}\nhz:10\nconfigured_hz:10\nlru_clock:{}\nexecutable:/usr/bin/redis-server\nconfig_file:/etc/redis/redis.conf",
            release.redis,
            facts.hex("redis build", 16),
            release.system,
            release.kernel,
            release.machine,
            release.gcc,
            facts.hex(
                &format!("redis run {}", facts.booted(now).unix_timestamp()),
                40
            ),
            up / 86_400,
            now.unix_timestamp() & 0x00ff_ffff
        ),
    );
    add("Clients", "connected_clients:1\nmaxclients:10000\nclient_recent_max_input_buffer:20480\nclient_recent_max_output_buffer:0\nblocked_clients:0".to_owned());
    add(
        "Memory",
        format!(
            "used_memory:{memory}\nused_memory_human:{:.2}K\nused_memory_rss:{}\nused_memory_peak:{}\ntotal_system_memory:{}\nmaxmemory:0\nmaxmemory_human:0B\nmaxmemory_policy:noeviction\nmem_fragmentation_ratio:11.03\nmem_allocator:jemalloc-5.2.1",
            f64::from(u32::try_from(memory).unwrap_or(0)) / 1024.0,
            memory * 9,
            memory + 61_000,
            facts.memory_kib * 1024
        ),
    );
    add(
        "Persistence",
        format!(
            "loading:0\nrdb_changes_since_last_save:{}\nrdb_bgsave_in_progress:0\nrdb_last_save_time:{}\nrdb_last_bgsave_status:ok\naof_enabled:0",
            store.len(),
            now.unix_timestamp() - 1800
        ),
    );
    let received =
        400 + facts.seed.pick("redis connections", 4000) + u64::try_from(up / 900).unwrap_or(0);
    add(
        "Stats",
        format!(
            "total_connections_received:{received}\ntotal_commands_processed:{}\ninstantaneous_ops_per_sec:0\nrejected_connections:0\nexpired_keys:{}\nevicted_keys:0\nkeyspace_hits:{}\nkeyspace_misses:{}",
            received * 7,
            received / 5,
            received * 4,
            received / 3
        ),
    );
    add(
        "Replication",
        format!(
            "role:master\nconnected_slaves:0\nmaster_failover_state:no-failover\nmaster_replid:{}\nmaster_repl_offset:0\nrepl_backlog_active:0",
            facts.hex("redis replid", 40)
        ),
    );
    let cpu = f64::from(i32::try_from(up).unwrap_or(i32::MAX)) * 0.0011;
    add(
        "CPU",
        format!("used_cpu_sys:{:.6}\nused_cpu_user:{cpu:.6}", cpu * 0.8),
    );
    add("Cluster", "cluster_enabled:0".to_owned());
    let keys = store.len();
    let keyspace = if keys > 0 {
        format!("db0:keys={keys},expires=0,avg_ttl=0")
    } else {
        String::new()
    };
    add("Keyspace", keyspace);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_selects_within_a_bound_of_steps() {
        let keys = vec![vec![b'a'; 128 * 1024]; 7];
        let hostile = |length: usize| [b"*".to_vec(), vec![b'a'; length], b"b".to_vec()].concat();
        // The longest that is looked at takes all steps there are, however many keys there are.
        let pattern = hostile(MAX_PATTERN - 2);
        let selection = Selection::by(&pattern);
        assert!(!keys.iter().any(|key| selection.has(key)));
        assert!(selection.budget.is_spent());
        // A longer one is not looked at.
        let pattern = hostile(65_000);
        let selection = Selection::by(&pattern);
        assert!(selection.budget.is_spent());
        assert!(!keys.iter().any(|key| selection.has(key)));
    }

    #[test]
    fn a_full_store_is_searched_whole_by_an_ordinary_pattern() {
        let keys: Vec<_> = (0..4096)
            .map(|number| format!("{number:0>250}:end"))
            .collect();
        let selection = Selection::by(b"*:e?d");
        let found = keys.iter().filter(|key| selection.has(key.as_bytes()));
        assert_eq!(found.count(), keys.len());
    }
}
