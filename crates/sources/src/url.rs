//! Addresses of other systems, read strictly before anything is started: a text in, the address or what is wrong with it out.
//!
//! Called by the settings here, and by the binary for those of the broker and of traces. No reason repeats the text: it may hold a
//! password.

use reqwest::Url;

/// An address with one of these schemes and a host.
///
/// # Errors
/// What is wrong with it.
pub fn server(text: &str, schemes: &[&str]) -> Result<Url, String> {
    let wanted = schemes.iter().map(|scheme| format!("{scheme}://")).collect::<Vec<_>>().join(" or ");
    if text.is_empty() {
        return Err(format!("is empty: it begins with {wanted}"));
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("holds a space or a control character".into());
    }
    if !text.contains("://") {
        return Err(format!("must begin with {wanted}"));
    }
    let url = Url::parse(text).map_err(|error| format!("is not an address: {error}"))?;
    if !schemes.contains(&url.scheme()) {
        return Err(format!("must begin with {wanted}, not {}://", url.scheme()));
    }
    if url.host_str().unwrap_or_default().is_empty() {
        return Err("names no host".into());
    }
    if url.port() == Some(0) {
        return Err("has port 0, which nobody listens on".into());
    }
    Ok(url)
}

/// The address of Redis: behind the host comes at most the number of a database.
///
/// # Errors
/// What is wrong with it.
pub fn redis(text: &str) -> Result<Url, String> {
    let url = server(text, &["redis", "rediss"])?;
    let database = url.path().trim_start_matches('/');
    if database.is_empty() || database.parse::<u32>().is_ok() {
        return Ok(url);
    }
    Err("has a path that is not the number of a database".into())
}

/// Servers as `host:port`, separated by commas; the port may be left out.
///
/// # Errors
/// What is wrong with one of them.
pub fn hosts(text: &str) -> Result<(), String> {
    text.split(',').try_for_each(|one| {
        if one.contains("://") {
            return Err("takes host:port, separated by commas, without a scheme".into());
        }
        server(&format!("tcp://{}", one.trim()), &["tcp"]).and_then(|url| {
            let is_bare = url.username().is_empty() && url.password().is_none() && matches!(url.path(), "" | "/");
            if is_bare { Ok(()) } else { Err("takes host:port, separated by commas, and nothing else".into()) }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_scheme_a_host_and_a_port_that_exists() {
        for good in
            ["redis://x", "redis://:pw@x", "rediss://u:p%40w@10.0.0.5:6379/3", "redis://[::1]:1", "redis://x:65535/"]
        {
            assert!(redis(good).is_ok(), "{good}: {:?}", redis(good));
        }
        for (bad, reason) in [
            ("", "is empty"),
            ("http://:pw@x", "must begin with redis:// or rediss://, not http://"),
            ("x:6379", "must begin with"),
            ("redis://x:99999", "invalid port"),
            ("redis://x:0", "port 0"),
            ("redis://x:port", "invalid port"),
            ("redis://", "host"),
            ("redis://:pw@", "host"),
            ("redis://:pw@/1", "host"),
            ("redis://x/zero", "number of a database"),
            ("redis://a b", "a space"),
            ("unix:///run/redis", "must begin with"),
        ] {
            let refused = redis(bad).expect_err(bad);
            assert!(refused.contains(reason) && !refused.contains("pw"), "{bad}: {refused}");
        }
    }

    #[test]
    fn servers_are_hosts_with_ports() {
        for good in ["a", "a:9092", "a:9092,b:9092", "a:1, [::1]:2"] {
            assert!(hosts(good).is_ok(), "{good}: {:?}", hosts(good));
        }
        for bad in ["", "a,", "a:99999", "kafka://a", "u:pw@a:1", "a/b", "a:0"] {
            assert!(hosts(bad).is_err(), "{bad}");
        }
    }
}
