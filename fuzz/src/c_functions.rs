//! The C functions with any bytes: results and errors are as the top of the header says, whatever comes in.
//!
//! The first byte chooses a function, the second which pointers are NULL; then come the strings, each ended by a NUL.
#![allow(unsafe_code, non_camel_case_types)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{self, null, null_mut};

use evergrant::Status;
use evergrant::config::{Config, StoreLocation};
use serde_json::Value;

use super::{CANARY, OFFLINE, check_message};

type Out<T> = *mut *mut T;

// Handles, as C sees them.
type evergrant_client = c_void;
type evergrant_error = c_void;
type evergrant_queue = c_void;

// Every function of the header; the compiler sees to it that each one is called.
#[deny(dead_code)]
unsafe extern "C" {
    fn evergrant_abi_version() -> u32;
    fn evergrant_version() -> *const c_char;
    fn evergrant_status_name(status: i32) -> *const c_char;
    fn evergrant_string_free(string: *mut c_char);
    fn evergrant_error_status(error: *const evergrant_error) -> i32;
    fn evergrant_error_message(error: *const evergrant_error) -> *const c_char;
    fn evergrant_error_json(error: *const evergrant_error) -> *const c_char;
    fn evergrant_error_free(error: *mut evergrant_error);
    fn evergrant_json_member(
        json: *const c_char,
        name: *const c_char,
        value: Out<c_char>,
        error: Out<evergrant_error>,
    ) -> i32;
    fn evergrant_is_rejection(http_status: i32, body: *const c_char) -> i32;
    fn evergrant_refresh(request: *const c_char, token: Out<c_char>, error: Out<evergrant_error>) -> i32;
    fn evergrant_client_open(config: *const c_char, client: Out<evergrant_client>, error: Out<evergrant_error>) -> i32;
    fn evergrant_client_stats(client: *const evergrant_client, json: Out<c_char>, error: Out<evergrant_error>) -> i32;
    fn evergrant_client_events(
        client: *const evergrant_client,
        after: u64,
        max_wait_ms: u32,
        json: Out<c_char>,
        error: Out<evergrant_error>,
    ) -> i32;
    fn evergrant_client_close(client: *const evergrant_client, max_wait_ms: u32) -> i32;
    fn evergrant_client_free(client: *mut evergrant_client);
    fn evergrant_session_save(
        client: *const evergrant_client,
        session: *const c_char,
        token: *const c_char,
        error: Out<evergrant_error>,
    ) -> i32;
    fn evergrant_session_token(
        client: *const evergrant_client,
        session: *const c_char,
        options: *const c_char,
        token: Out<c_char>,
        error: Out<evergrant_error>,
    ) -> i32;
    fn evergrant_session_access_token(
        client: *const evergrant_client,
        session: *const c_char,
        options: *const c_char,
        token: Out<c_char>,
        error: Out<evergrant_error>,
    ) -> i32;
    fn evergrant_session_renew(
        client: *const evergrant_client,
        session: *const c_char,
        rejected: *const c_char,
        options: *const c_char,
        token: Out<c_char>,
        error: Out<evergrant_error>,
    ) -> i32;
    fn evergrant_session_peek(
        client: *const evergrant_client,
        session: *const c_char,
        token: Out<c_char>,
        fresh_until_ms: *mut i64,
    ) -> i32;
    fn evergrant_session_stamp(
        client: *const evergrant_client,
        session: *const c_char,
        stamp: *mut *const u32,
        error: Out<evergrant_error>,
    ) -> i32;
    fn evergrant_session_allows(
        client: *const evergrant_client,
        session: *const c_char,
        url: *const c_char,
        first_url: *const c_char,
        allowed: *mut i32,
        error: Out<evergrant_error>,
    ) -> i32;
    fn evergrant_session_describe(
        client: *const evergrant_client,
        session: *const c_char,
        json: Out<c_char>,
        error: Out<evergrant_error>,
    ) -> i32;
    fn evergrant_session_list(
        client: *const evergrant_client,
        after: *const c_char,
        limit: u32,
        json: Out<c_char>,
        error: Out<evergrant_error>,
    ) -> i32;
    fn evergrant_session_introspect(
        client: *const evergrant_client,
        session: *const c_char,
        json: Out<c_char>,
        error: Out<evergrant_error>,
    ) -> i32;
    fn evergrant_session_sign_out(
        client: *const evergrant_client,
        session: *const c_char,
        error: Out<evergrant_error>,
    ) -> i32;
    fn evergrant_session_forget(
        client: *const evergrant_client,
        session: *const c_char,
        error: Out<evergrant_error>,
    ) -> i32;
    fn evergrant_session_move(
        client: *const evergrant_client,
        session: *const c_char,
        to: *const c_char,
        error: Out<evergrant_error>,
    ) -> i32;
    fn evergrant_sign_in_start(
        client: *const evergrant_client,
        request: *const c_char,
        sign_in: Out<c_char>,
        error: Out<evergrant_error>,
    ) -> i32;
    fn evergrant_sign_in_finish(
        client: *const evergrant_client,
        session: *const c_char,
        sign_in: *const c_char,
        redirect_url: *const c_char,
        token: Out<c_char>,
        error: Out<evergrant_error>,
    ) -> i32;
    fn evergrant_sign_in_with_browser(
        client: *const evergrant_client,
        session: *const c_char,
        request: *const c_char,
        token: Out<c_char>,
        error: Out<evergrant_error>,
    ) -> i32;
    fn evergrant_sign_in_with_password(
        client: *const evergrant_client,
        session: *const c_char,
        request: *const c_char,
        token: Out<c_char>,
        error: Out<evergrant_error>,
    ) -> i32;
    fn evergrant_queue_open(queue: Out<evergrant_queue>, fd: *mut i32, error: Out<evergrant_error>) -> i32;
    fn evergrant_queue_submit(
        queue: *const evergrant_queue,
        client: *const evergrant_client,
        tag: u64,
        call: *const c_char,
        error: Out<evergrant_error>,
    ) -> i32;
    fn evergrant_queue_take(
        queue: *const evergrant_queue,
        max_wait_ms: u32,
        json: Out<c_char>,
        error: Out<evergrant_error>,
    ) -> i32;
    fn evergrant_queue_free(queue: *mut evergrant_queue);
}

/// How many there are for the first byte.
pub const CHOICES: u8 = 26;

const TOKEN: &CStr =
    c"{\"refresh_token\": \"canary-refresh-token\", \"access_token\": \"access-token\", \"expires_in\": 600}";

/// Arguments from the input.
struct Arguments {
    strings: Vec<CString>,
    nulls: u8,
    next: usize,
}

impl Arguments {
    /// The next string: NULL if the input wants it, or has no more.
    fn string(&mut self) -> *const c_char {
        let at = self.next;
        self.next += 1;
        match self.strings.get(at) {
            Some(string) if self.nulls & (1 << at) == 0 => string.as_ptr(),
            _ => null(),
        }
    }

    fn text(&self, at: usize) -> Option<&str> {
        self.strings.get(at)?.to_str().ok()
    }

    fn wants(&self, bit: u8) -> bool {
        self.nulls & (1 << bit) == 0
    }
}

pub fn run(data: &[u8]) {
    let [function, nulls, rest @ ..] = data else { return };
    let strings = rest.split(|byte| *byte == 0).map(|part| CString::new(part).expect("no NUL")).collect();
    let mut arguments = Arguments { strings, nulls: *nulls, next: 0 };
    // The last string as a number.
    let number = rest.iter().rev().take(4).fold(0, |number: u32, byte| number << 8 | u32::from(*byte));
    let canary = String::from_utf8_lossy(rest).contains(CANARY);
    let client = Client::open();
    // SAFETY: every pointer is NULL or as the header wants it: C strings of this function, outs of `Results`, a client
    // that lives until its end.
    unsafe { call(*function, number, canary, &client, &mut arguments) };
}

unsafe fn call(function: u8, number: u32, canary: bool, client: &Client, arguments: &mut Arguments) {
    let handle = if arguments.wants(5) { client.0 } else { null() };
    let mut results = Results::new(arguments.wants(6), arguments.wants(7));
    let (out, error) = (results.out(), results.error_out());
    let a = arguments;
    // SAFETY: the caller's.
    let status = unsafe {
        match function % CHOICES {
            0 => match a.text(0).map(Config::from_json) {
                // Nothing but memory is opened: the input could name any file.
                Some(Ok(config)) if config.store != StoreLocation::Memory => return,
                _ => {
                    let mut opened: *mut evergrant_client = null_mut();
                    let status = evergrant_client_open(a.string(), &mut opened, error);
                    assert_eq!(status == 0, !opened.is_null());
                    evergrant_client_free(opened);
                    results.check(status, false, canary);
                    return;
                }
            },
            1 => evergrant_client_stats(handle, out, error),
            2 => evergrant_client_events(handle, number.into(), 0, out, error),
            3 => evergrant_session_save(handle, a.string(), a.string(), error),
            4 => evergrant_session_token(handle, a.string(), a.string(), out, error),
            5 => {
                let status = evergrant_session_access_token(handle, a.string(), a.string(), out, error);
                results.check_text(status, "access-token");
                return;
            }
            6 => evergrant_session_renew(handle, a.string(), a.string(), a.string(), out, error),
            7 => {
                let mut fresh_until_ms = -1;
                let status = evergrant_session_peek(handle, a.string(), out, &mut fresh_until_ms);
                assert_eq!(status == 0, fresh_until_ms != -1, "an out is written on failure");
                results.check_without_error(status, "access-token");
                return;
            }
            8 => {
                let mut stamp = null();
                let status = evergrant_session_stamp(handle, a.string(), &mut stamp, error);
                assert_eq!(status == 0, !stamp.is_null());
                if status == 0 {
                    ptr::read_volatile(stamp);
                }
                status
            }
            9 => {
                let mut allowed = -1;
                let status = evergrant_session_allows(handle, a.string(), a.string(), a.string(), &mut allowed, error);
                assert!(if status == 0 { matches!(allowed, 0 | 1) } else { allowed == -1 });
                status
            }
            10 => evergrant_session_describe(handle, a.string(), out, error),
            11 => evergrant_session_list(handle, a.string(), number, out, error),
            12 => evergrant_session_introspect(handle, a.string(), out, error),
            13 => evergrant_session_sign_out(handle, a.string(), error),
            14 => evergrant_session_forget(handle, a.string(), error),
            15 => evergrant_sign_in_start(handle, a.string(), out, error),
            16 => evergrant_sign_in_finish(handle, a.string(), a.string(), a.string(), out, error),
            17 => evergrant_sign_in_with_password(handle, a.string(), a.string(), out, error),
            18 => {
                let status = evergrant_json_member(a.string(), a.string(), out, error);
                results.check_any_text(status);
                return;
            }
            19 => {
                assert!(matches!(evergrant_is_rejection(number as i32, a.string()), 0 | 1));
                return;
            }
            20 => {
                let name = CStr::from_ptr(evergrant_status_name(number as i32)).to_str().expect("UTF-8");
                assert_eq!(name == "UNKNOWN", !(0..10).contains(&(number as i32)));
                assert_eq!(CStr::from_ptr(evergrant_version()).to_str(), Ok(evergrant::VERSION));
                assert_eq!(evergrant_abi_version(), evergrant::capi::ABI_VERSION);
                return;
            }
            21 => match a.text(0).map(Config::from_refresh_request) {
                // It would be sent.
                Some(Ok(_)) => return,
                _ => evergrant_refresh(a.string(), out, error),
            },
            22 => {
                assert!((0..10).contains(&evergrant_client_close(handle, 0)));
                evergrant_session_describe(handle, a.string(), out, error)
            }
            23 => evergrant_session_move(handle, a.string(), a.string(), error),
            25 => evergrant_sign_in_with_browser(handle, a.string(), a.string(), out, error),
            _ => {
                let mut queue = null_mut();
                assert_eq!(evergrant_queue_open(&mut queue, null_mut(), null_mut()), 0);
                let status = evergrant_queue_submit(queue, handle, number.into(), a.string(), error);
                results.check(status, false, canary);
                let (mut results, wait) = (Results::new(true, true), u32::from(status == 0));
                let status = evergrant_queue_take(queue, wait, results.out(), results.error_out());
                results.check(status, true, canary);
                evergrant_queue_free(queue);
                return;
            }
        }
    };
    let writes = !matches!(function % CHOICES, 3 | 8 | 9 | 13 | 14 | 23);
    results.check(status, writes, canary);
}

/// A client with one session.
struct Client(*mut evergrant_client);

impl Client {
    fn open() -> Self {
        let config = CString::new(OFFLINE).expect("no NUL");
        let mut client = null_mut();
        // SAFETY: C strings and an out; no error is wanted.
        unsafe {
            assert_eq!(evergrant_client_open(config.as_ptr(), &mut client, null_mut()), 0);
            assert_eq!(evergrant_session_save(client, c"alice".as_ptr(), TOKEN.as_ptr(), null_mut()), 0);
        }
        Self(client)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: the last use of a client that `open` got.
        unsafe { evergrant_client_free(self.0) };
    }
}

/// The outs of one call.
struct Results {
    text: *mut c_char,
    error: *mut evergrant_error,
    wants_error: bool,
    wants_text: bool,
}

impl Results {
    /// What an out is before the call.
    fn untouched() -> *mut c_char {
        ptr::dangling_mut()
    }

    fn new(wants_error: bool, wants_text: bool) -> Self {
        Self { text: Self::untouched(), error: ptr::dangling_mut(), wants_error, wants_text }
    }

    fn out(&mut self) -> Out<c_char> {
        if self.wants_text { &mut self.text } else { null_mut() }
    }

    fn error_out(&mut self) -> Out<evergrant_error> {
        if self.wants_error { &mut self.error } else { null_mut() }
    }

    /// What holds for every function; `json`: on success it gives an object or a list.
    fn check(self, status: i32, json: bool, canary: bool) {
        self.check_error(status, canary);
        if let Some(text) = self.take(status, json) {
            let _: Value = serde_json::from_str(&text).expect("JSON");
            assert!(canary || !text.contains(CANARY), "a secret leaves: {text}");
        }
    }

    fn check_text(self, status: i32, expected: &str) {
        self.check_error(status, false);
        assert!(self.take(status, true).is_none_or(|text| text == expected));
    }

    fn check_any_text(self, status: i32) {
        self.check_error(status, true);
        self.take(status, true);
    }

    fn check_without_error(self, status: i32, expected: &str) {
        assert!((0..10).contains(&status) && status != Status::Internal as i32);
        assert!(self.take(status, true).is_none_or(|text| text == expected));
    }

    fn take(&self, status: i32, writes: bool) -> Option<String> {
        if status != 0 || !writes || !self.wants_text {
            assert_eq!(self.text, Self::untouched(), "an out is written on failure");
            return None;
        }
        // SAFETY: after OK it is an owned string, and this is its last use.
        unsafe {
            let text = CStr::from_ptr(self.text).to_str().expect("UTF-8").to_owned();
            evergrant_string_free(self.text);
            Some(text)
        }
    }

    fn check_error(&self, status: i32, canary: bool) {
        assert!((0..10).contains(&status), "status {status}");
        assert_ne!(status, Status::Internal as i32, "a defect");
        if !self.wants_error {
            return;
        }
        assert_eq!(self.error.is_null(), status == 0, "an error, and only then");
        // SAFETY: NULL or an owned error, whose last use is at the end.
        unsafe {
            assert_eq!(evergrant_error_status(self.error), status);
            let message = CStr::from_ptr(evergrant_error_message(self.error)).to_str().expect("UTF-8");
            let json = CStr::from_ptr(evergrant_error_json(self.error)).to_str().expect("UTF-8");
            let json: Value = serde_json::from_str(json).expect("JSON");
            if status != 0 {
                check_message(message);
                let name = CStr::from_ptr(evergrant_status_name(status)).to_str().expect("UTF-8");
                assert_eq!((json["status"].as_str(), json["message"].as_str()), (Some(name), Some(message)));
            }
            assert!(canary || !message.contains(CANARY), "a secret is shown: {message}");
            evergrant_error_free(self.error);
        }
    }
}
