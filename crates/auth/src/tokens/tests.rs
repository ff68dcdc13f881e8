//! Tables of (token, time, settings) to grant or reason, with the whole matrix of known attacks on tokens.

use super::*;
use crate::Secret;
use crate::error::TokenRefusal as R;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NOW_S: i64 = 1_800_000_000;
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

fn settings() -> AuthSettings {
    AuthSettings { hs256_secret: Some(Secret::new(SECRET)), ..AuthSettings::default() }
}

fn tokens(settings: AuthSettings) -> Tokens {
    Tokens::new(settings).expect("safe settings")
}

fn token(claims: &str) -> String {
    sign(HEADER, claims.as_bytes(), SECRET.as_bytes())
}

/// Verifies a connection token, twice, so that what the cache says is compared too.
#[track_caller]
fn connect(settings: AuthSettings, token: &str, now_s: i64) -> Result<Grant, R> {
    let tokens = tokens(settings);
    let first = tokens.connect_grant(token, now_s * 1_000);
    assert_eq!(tokens.connect_grant(token, now_s * 1_000), first, "the cache says something else");
    let expected = match &first {
        Ok(grant) => TokenVerdict::Good(grant.clone()),
        Err(R::Expired) => TokenVerdict::Expired,
        Err(_) => TokenVerdict::Bad,
    };
    assert_eq!(tokens.verify_connect(token, now_s * 1_000), expected);
    first
}

#[track_caller]
fn refuses(claims: &str, reason: R) {
    assert_eq!(connect(settings(), &token(claims), NOW_S), Err(reason), "{claims}");
}

#[track_caller]
fn grants(claims: &str) -> Grant {
    connect(settings(), &token(claims), NOW_S).unwrap_or_else(|reason| panic!("{claims}: {reason}"))
}

#[test]
fn a_connection_token_becomes_a_grant() {
    let grant = grants(
        r#"{"sub":"ana","exp":1800000060,"iat":1700000000,"nbf":1800000000,"jti":"1","info":{"name":"Ana"},
            "channels":["news","chat:1"],"meta":{"x":1},"subs":{},"anything":[1]}"#,
    );
    assert_eq!(grant.user.as_str(), "ana");
    assert_eq!(grant.info.expect("info").as_bytes(), br#"{"name":"Ana"}"#);
    assert_eq!(grant.expires_at_ms, Some(1_800_000_060_000));
    assert_eq!(grant.channels.iter().map(|c| c.as_str()).collect::<Vec<_>>(), ["chat:1", "news"]);
    assert!(!grant.insecure);
}

#[test]
fn the_tokens_of_the_official_clients_own_tests_are_good() {
    let settings = AuthSettings {
        hs256_secret: Some(Secret::new("secret")),
        short_secret_allowed: true,
        ..AuthSettings::default()
    };
    let connection =
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpYXQiOjE3MzgwNzg4MjR9.MTb3higWfFW04E9-8wmTFOcf4MEm-rMDQaNKJ1VU_n4";
    let subscription = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpYXQiOjE3Mzc1MzIzNDgsImNoYW5uZWwiOiJ0ZXN0MSJ9.eqPQxbBtyYxL8Hvbkm-P6aH7chUsSG_EMWe-rTwF_HI";
    assert_eq!(connect(settings.clone(), connection, NOW_S), Ok(Grant::default()));
    assert_eq!(connect(settings.clone(), subscription, NOW_S), Err(R::Kind));
    let tokens = tokens(settings);
    let grant = tokens.subscription_grant(subscription, NOW_S * 1_000).expect("good");
    assert_eq!((grant.user.as_str(), grant.channel.as_str(), grant.expires_at_ms), ("", "test1", None));
    assert_eq!(tokens.subscription_grant(connection, NOW_S * 1_000), Err(R::Kind));
}

#[test]
fn algorithms_and_headers_that_do_not_fit_the_key_are_refused() {
    let unsigned = |alg: &str| {
        format!("{}.{}.", URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{alg}"}}"#)), URL_SAFE_NO_PAD.encode("{}"))
    };
    for alg in [
        "none", "None", "NONE", "nOnE", "RS256", "HS384", "HS512", "ES256", "EdDSA", "PS256", "hs256", "HS256 ", "x",
        "",
    ] {
        assert_eq!(connect(settings(), &unsigned(alg), NOW_S), Err(R::Header), "unsigned {alg}");
        let signed = sign(&format!(r#"{{"alg":"{alg}"}}"#), b"{}", SECRET.as_bytes());
        assert_eq!(connect(settings(), &signed, NOW_S), Err(R::Header), "signed {alg}");
    }
    for (header, expected) in [
        (r#"{"alg":"HS256"}"#, Ok(())),
        (r#"{"alg":"HS256","typ":"jwt"}"#, Ok(())),
        (r#"{"alg":"HS256","typ":"JWE"}"#, Err(R::Header)),
        (r#"{"alg":"HS256","crit":["exp"]}"#, Err(R::Header)),
        (r#"{"alg":"HS256","typ":null}"#, Err(R::Malformed)),
        (r#"{"alg":"none","alg":"HS256"}"#, Err(R::Malformed)),
        (r#"{"typ":"JWT"}"#, Err(R::Malformed)),
        (r#"{"alg":1}"#, Err(R::Malformed)),
        (r#"["HS256"]"#, Err(R::Malformed)),
        ("", Err(R::Malformed)),
    ] {
        assert_eq!(connect(settings(), &sign(header, b"{}", SECRET.as_bytes()), NOW_S).map(drop), expected, "{header}");
    }
}

#[test]
fn a_header_chooses_no_key() {
    // Paths, SQL, URLs, embedded keys: whatever is named, our one key decides.
    for extra in [
        r#""kid":"../../etc/passwd""#,
        r#""kid":"' OR 1=1 --""#,
        r#""kid":"http://169.254.169.254/""#,
        r#""kid":7"#,
        r#""jku":"https://evil.example/jwks""#,
        r#""x5u":"https://evil.example/x""#,
        r#""jwk":{"kty":"oct","k":"ZXZpbA"}"#,
        r#""x5c":["AAAA"]"#,
    ] {
        let header = format!(r#"{{"alg":"HS256",{extra}}}"#);
        assert_eq!(
            connect(settings(), &sign(&header, b"{}", SECRET.as_bytes()), NOW_S),
            Ok(Grant::default()),
            "{extra}"
        );
        assert_eq!(connect(settings(), &sign(&header, b"{}", b"evil"), NOW_S), Err(R::Signature), "{extra}");
    }
    let header = format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "k".repeat(10 * 1024));
    assert_eq!(connect(settings(), &sign(&header, b"{}", SECRET.as_bytes()), NOW_S), Err(R::TooLong));
}

#[test]
fn only_our_signature_counts() {
    let good = token(r#"{"sub":"ana"}"#);
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    // HS256 keyed with the text of somebody's public key.
    let public_key = b"-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----\n";
    assert_eq!(connect(settings(), &sign(HEADER, b"{}", public_key), NOW_S), Err(R::Signature));
    assert_eq!(connect(settings(), &sign(HEADER, b"{}", b""), NOW_S), Err(R::Signature));
    assert_eq!(connect(settings(), &format!("{message}."), NOW_S), Err(R::Signature));
    assert_eq!(connect(settings(), &format!("{message}.{}", &signature[..40]), NOW_S), Err(R::Signature));
    assert_eq!(connect(AuthSettings::default(), &good, NOW_S), Err(R::NoKey));
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).expect("ASCII");
        assert!(connect(settings(), &changed, NOW_S).is_err(), "{changed}");
    }
}

#[test]
fn what_is_not_three_unpadded_parts_is_no_token() {
    let good = token("{}");
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    for bad in [
        "".to_owned(),
        ".".to_owned(),
        "..".to_owned(),
        "a.b".to_owned(),
        message.to_owned(),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}="),
        format!("{message}=.{signature}"),
        format!("{message}.{signature}\n"),
        format!(" {good}"),
        format!("Bearer {good}"),
        good.replace('.', ".."),
        "tl1.AAAA.AAAA".to_owned(),
    ] {
        let refusal = connect(settings(), &bad, NOW_S).expect_err(&bad);
        assert!(matches!(refusal, R::Malformed | R::Signature), "{bad}: {refusal}");
    }
    assert_eq!(connect(settings(), &"a".repeat(1 << 20), NOW_S), Err(R::TooLong));
    let longest = |filler: usize| token(&format!(r#"{{"x":"{}"}}"#, "x".repeat(filler)));
    let fits = (0..8_192).rev().map(longest).find(|t| t.len() <= TOKEN_BYTES_MAX).expect("some fit");
    assert!(connect(settings(), &fits, NOW_S).is_ok());
}

#[test]
fn times_are_whole_seconds_of_our_age_or_nothing() {
    for claim in ["exp", "nbf", "iat", "expire_at"] {
        for value in [
            r#""1800000060""#,
            "1800000060.0",
            "1800000060.5",
            "1.8e9",
            "-1",
            "-0.5",
            "1e309",
            "-1e309",
            "null",
            "true",
            "[]",
            "{}",
            "99999999999",
            "1800000060000",
            "18446744073709551615",
            "18446744073709551616",
            "NaN",
            "0x1",
        ] {
            refuses(&format!(r#"{{"{claim}":{value}}}"#), R::Claims);
        }
    }
}

#[test]
fn a_token_lives_from_nbf_to_exp() {
    let at = |claims: &str, leeway_s: u32| {
        connect(AuthSettings { leeway_s, ..settings() }, &token(claims), NOW_S).map(|grant| grant.expires_at_ms)
    };
    assert_eq!(at("{}", 0), Ok(None));
    assert_eq!(at(r#"{"exp":1800000001}"#, 0), Ok(Some(1_800_000_001_000)));
    assert_eq!(at(r#"{"exp":1800000000}"#, 0), Err(R::Expired));
    assert_eq!(at(r#"{"exp":0}"#, 0), Err(R::Expired));
    assert_eq!(at(r#"{"exp":1799999971}"#, 30), Ok(Some(1_800_000_001_000)));
    assert_eq!(at(r#"{"exp":1799999970}"#, 30), Err(R::Expired));
    assert_eq!(at(r#"{"nbf":1800000000}"#, 0), Ok(None));
    assert_eq!(at(r#"{"nbf":1800000001}"#, 0), Err(R::NotYet));
    assert_eq!(at(r#"{"nbf":1800000030}"#, 30), Ok(None));
    assert_eq!(at(r#"{"nbf":1800000031}"#, 30), Err(R::NotYet));
    assert_eq!(at(r#"{"iat":1900000000}"#, 0), Ok(None));
    assert!(Tokens::new(AuthSettings { leeway_s: 31, ..settings() }).is_err());
    let required = AuthSettings { expiry_required: true, ..settings() };
    assert_eq!(connect(required, &token("{}"), NOW_S), Err(R::Claims));
}

#[test]
fn expire_at_rules_the_connection_and_exp_the_token() {
    let ends = |claims: &str| connect(settings(), &token(claims), NOW_S).map(|grant| grant.expires_at_ms);
    assert_eq!(ends(r#"{"exp":1800000060,"expire_at":1800009999}"#), Ok(Some(1_800_009_999_000)));
    assert_eq!(ends(r#"{"exp":1800000060,"expire_at":0}"#), Ok(None));
    assert_eq!(ends(r#"{"exp":1799999999,"expire_at":0}"#), Err(R::Expired));
    assert_eq!(ends(r#"{"expire_at":1799999999}"#), Err(R::Expired));
}

#[test]
fn what_the_cache_knows_expires_too() {
    let tokens = tokens(settings());
    let token = token(r#"{"sub":"ana","exp":1800000001}"#);
    assert!(tokens.connect_grant(&token, NOW_S * 1_000).is_ok());
    assert!(tokens.connect_grant(&token, NOW_S * 1_000 + 999).is_ok());
    assert_eq!(tokens.connect_grant(&token, NOW_S * 1_000 + 1_000), Err(R::Expired));
    assert_eq!(tokens.subscription_grant(&token, NOW_S * 1_000), Err(R::Kind), "one kind's cache is not the other's");
}

#[test]
fn audience_and_issuer_are_compared_letter_by_letter() {
    let named =
        || AuthSettings { audience: Some("tales".into()), issuer: Some("https://id.example".into()), ..settings() };
    for (claims, expected) in [
        (r#"{"aud":"tales","iss":"https://id.example"}"#, Ok(())),
        (r#"{"aud":["other","tales"],"iss":"https://id.example"}"#, Ok(())),
        (r#"{"iss":"https://id.example"}"#, Err(R::Audience)),
        (r#"{"aud":"Tales","iss":"https://id.example"}"#, Err(R::Audience)),
        (r#"{"aud":"tales2","iss":"https://id.example"}"#, Err(R::Audience)),
        (r#"{"aud":[],"iss":"https://id.example"}"#, Err(R::Audience)),
        (r#"{"aud":"tales"}"#, Err(R::Issuer)),
        (r#"{"aud":"tales","iss":"https://id.example/"}"#, Err(R::Issuer)),
        (r#"{"aud":"tales","iss":"HTTPS://id.example"}"#, Err(R::Issuer)),
        (r#"{"aud":"tales","iss":["https://id.example"]}"#, Err(R::Claims)),
        (r#"{"aud":{"tales":1},"iss":"https://id.example"}"#, Err(R::Claims)),
        (r#"{"aud":[1],"iss":"https://id.example"}"#, Err(R::Claims)),
    ] {
        assert_eq!(connect(named(), &token(claims), NOW_S).map(drop), expected, "{claims}");
    }
    refuses(r#"{"aud":"tales"}"#, R::Audience);
    grants(r#"{"iss":"anyone"}"#);
}

#[test]
fn claims_are_read_strictly() {
    for claims in [
        r#"{"sub":"ana","sub":"ben"}"#,
        r#"{"sub":"ana","\u0073ub":"ben"}"#,
        r#"{"exp":1900000000,"exp":1900000000}"#,
        r#"{"channel":"a","channel":"b"}"#,
        r#"{"channels":[],"channels":["a"]}"#,
        r#"{"sub":7}"#,
        r#"{"sub":null}"#,
        r#"{"sub":["ana"]}"#,
        r#"{"sub":"a\nb"}"#,
        r#"{"jti":7}"#,
        r#"{"channels":"a"}"#,
        r#"{"channels":["a b"]}"#,
        r#"{"channels":[""]}"#,
        r#"{"channel":null}"#,
        r#"{"b64info":"%%"}"#,
        r#"{"b64info":"bm8="}"#,
        r#"{"b64info":7}"#,
        r#"["ana",1900000000]"#,
        r#""ana""#,
        "{}{}",
        "{",
        "",
    ] {
        refuses(claims, R::Claims);
    }
    refuses(&format!(r#"{{"sub":"{}"}}"#, "a".repeat(256)), R::Claims);
    refuses(r#"{"channel":"a"}"#, R::Kind);
    assert!(grants(r#"{"sub":""}"#).user.is_anonymous());
    assert_eq!(grants(r#"{"info":null}"#).info, None);
    assert_eq!(grants(r#"{"info":1,"b64info":"eyJhIjoxfQ=="}"#).info.expect("info").as_bytes(), br#"{"a":1}"#);
}

#[test]
fn a_subscription_token_becomes_a_grant_for_one_channel() {
    let tokens = tokens(settings());
    let token = token(r#"{"sub":"ana","channel":"chat:1","info":{"role":"x"},"exp":1800000060,"client":"c"}"#);
    let TokenVerdict::Good(grant) = tokens.verify_subscription(&token, NOW_S * 1_000) else { panic!("refused") };
    assert_eq!((grant.user.as_str(), grant.channel.as_str()), ("ana", "chat:1"));
    assert_eq!(grant.expires_at_ms, Some(1_800_000_060_000));
    assert_eq!(tokens.verify_subscription(&token, (NOW_S + 60) * 1_000), TokenVerdict::Expired);
    assert_eq!(tokens.verify_connect(&token, NOW_S * 1_000), TokenVerdict::Bad);
}

#[test]
fn issued_tokens_are_good_and_nothing_prints_the_secret() {
    let claims = serde_json::json!({"sub": "ana", "exp": 1_800_000_060});
    let issued = issue(claims.as_object().expect("an object"), &Secret::new(SECRET)).expect("signed");
    assert_eq!(connect(settings(), &issued, NOW_S).map(|g| g.user.as_str().to_owned()), Ok("ana".into()));
    assert_eq!(issue(&serde_json::Map::new(), &Secret::new("")), Err(BadSettings::SecretEmpty));
    assert!(!format!("{:?} {:?}", settings(), tokens(settings())).contains(SECRET));
}
