//! What a server may lose of what it said was written, by its settings.

use super::connect::Info;

/// Sentences that begin with the store's name. `fsync` and `save` are `None` where the server does not show them.
pub fn risks(info: &Info, fsync: Option<&str>, save: Option<&str>) -> Vec<String> {
    const COST: &str = "Users whose renewals are lost have to sign in again.";
    let mut risks = Vec::new();
    match (info.get("aof_enabled"), fsync) {
        (Some("1"), Some("always")) => {}
        (Some("1"), Some("everysec")) => risks.push(format!(
            "runs with appendfsync everysec: if its machine crashes, it may lose the last two seconds. {COST} Set \
             appendfsync always."
        )),
        (Some("1"), Some(_)) => risks.push(format!(
            "runs with appendfsync no: if its machine crashes, it may lose the last half minute, or more. {COST} Set \
             appendfsync always."
        )),
        (Some("1"), None) => risks.push(format!(
            "does not show its setting appendfsync: unless it is always, a crash of its machine may lose the last \
             seconds. {COST}"
        )),
        (Some(_), _) if save == Some("") => risks.push(
            "keeps nothing on a disk: a restart loses all sessions, and every user has to sign in again. Set \
             appendonly yes and appendfsync always."
                .to_owned(),
        ),
        (Some(_), _) => risks.push(format!(
            "keeps snapshots only: a restart loses what was written since the last one. {COST} Set appendonly yes and \
             appendfsync always."
        )),
        (None, _) => risks.push(format!(
            "does not show whether it keeps anything on a disk: unless it logs every write there, a restart may lose \
             sessions. {COST}"
        )),
    }
    // The other policies evict only keys that expire, and none of ours does.
    if let Some(policy) = info.get("maxmemory_policy")
        && policy.starts_with("allkeys-")
        && info.number("maxmemory") != Some(0)
    {
        risks.push(format!(
            "runs with maxmemory-policy {policy}: when its memory is full it deletes sessions, whose users have to sign \
             in again. Set maxmemory-policy noeviction."
        ));
    }
    risks
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    #[test]
    fn settings_that_lose_writes_are_named() {
        let found = |info: &str, fsync, save| {
            risks(&Info::of(&Value::BulkString(info.replace(' ', "\r\n").into())), fsync, save).join(" ")
        };
        assert_eq!(found("aof_enabled:1 maxmemory:9 maxmemory_policy:noeviction", Some("always"), Some("")), "");
        assert_eq!(found("aof_enabled:1 maxmemory:9 maxmemory_policy:volatile-lru", Some("always"), None), "");
        assert_eq!(found("aof_enabled:1 maxmemory:0 maxmemory_policy:allkeys-lru", Some("always"), None), "");
        for (info, fsync, save, word) in [
            ("aof_enabled:1 maxmemory:9 maxmemory_policy:allkeys-lru", Some("always"), None, "deletes sessions"),
            ("aof_enabled:1", Some("everysec"), Some(""), "two seconds"),
            ("aof_enabled:1", Some("no"), Some(""), "half minute"),
            ("aof_enabled:1", None, None, "does not show its setting"),
            ("aof_enabled:0", Some("everysec"), Some(""), "nothing on a disk"),
            ("aof_enabled:0", Some("everysec"), Some("3600 1"), "snapshots only"),
            ("aof_enabled:0", None, None, "snapshots only"),
            ("", None, None, "does not show whether"),
        ] {
            let said = found(info, fsync, save);
            assert!(said.contains(word), "{info}: {said}");
        }
    }
}
