//! `application/x-www-form-urlencoded`.

pub(crate) type Parameters = Vec<(String, String)>;

/// The value of the first parameter of that name.
pub(crate) fn value<'a>(parameters: &'a Parameters, name: &str) -> Option<&'a str> {
    parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

pub(crate) fn parse(text: &str) -> Parameters {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

/// `+` is a space, `%XX` a byte; anything else, a stray `%` included, stands for itself.
pub(crate) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut position = 0;
    while position < bytes.len() {
        let hex = |at: usize| bytes.get(at).and_then(|&byte| (byte as char).to_digit(16));
        match (bytes[position], hex(position + 1), hex(position + 2)) {
            (b'+', ..) => decoded.push(b' '),
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                position += 2;
            }
            (byte, ..) => decoded.push(byte),
        }
        position += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for &byte in text.as_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte as char),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        let odd = "a b+c%d&e=f/ü~";
        assert_eq!(encode(odd), "a%20b%2Bc%25d%26e%3Df%2F%C3%BC~");
        assert_eq!(decode(&encode(odd)), odd);
    }

    #[test]
    fn a_stray_percent_sign_and_a_bare_name_survive() {
        let parsed = parse("a=100%&b&&c=%zz%4");
        assert_eq!(value(&parsed, "a"), Some("100%"));
        assert_eq!(value(&parsed, "b"), Some(""));
        assert_eq!(value(&parsed, "c"), Some("%zz%4"));
    }
}
