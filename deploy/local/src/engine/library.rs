//! The engine library, as safe Rust: the only unsafe code of this repository.
//!
//! Promises: no handle outlives what it belongs to, every handle is given back exactly once, no C string is read after
//! it may have been freed. Relies on the C interface of release 26.7 (the functions named in [`Functions`]).
//!
//! Loaded at run time (`dlopen`) instead of linked, so building and testing the workspace never needs the 566 MB file.
//! The library is never unloaded: its threads may still run when we are done with it.
//!
//! Three facts of the library shape the types:
//! * the engine lives from the first connection to the last, so [`Engine`] holds one for as long as it exists;
//! * a connection runs one statement at a time, so everything on it takes `&mut` or consumes it;
//! * a result owns its bytes independently of the connection, so [`Rows`] may travel to another thread and die there.
#![expect(
    unsafe_code,
    reason = "the engine is a C library; every call into it is in this file"
)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;

use anyhow::Context as _;
use libloading::{Library, Symbol};

use super::exception::Exception;

/// A name and its value, bound to `{name:Type}` in a statement.
pub(crate) type Parameter = (String, Vec<u8>);

type Connected = *mut *mut c_void;
type QueryWithParameters = unsafe extern "C" fn(
    connection: *mut c_void,
    sql: *const c_char,
    sql_length: usize,
    format: *const c_char,
    format_length: usize,
    names: *const *const c_char,
    name_lengths: *const usize,
    values: *const *const c_char,
    value_lengths: *const usize,
    count: usize,
) -> *mut c_void;

/// Declares the struct of function pointers and the code that looks each of them up under its own name.
macro_rules! functions {
    ($($name:ident: $type:ty,)+) => {
        /// The C functions in use, under their own names.
        #[derive(Clone, Copy)]
        struct Functions { $($name: $type,)+ }

        impl Functions {
            fn load(library: &Library) -> anyhow::Result<Self> {
                Ok(Self { $($name: {
                    // SAFETY: the types below are those of the library's C header, release 26.7.
                    let symbol: Symbol<'_, $type> = unsafe { library.get(stringify!($name)) }
                        .with_context(|| concat!("the engine library has no ", stringify!($name), ": is it release 26.7?"))?;
                    *symbol
                },)+ })
            }
        }
    };
}

functions! {
    chdb_set_signal_handlers_enabled: unsafe extern "C" fn(c_int),
    chdb_connect: unsafe extern "C" fn(c_int, *mut *mut c_char) -> Connected,
    chdb_close_conn: unsafe extern "C" fn(Connected),
    chdb_shutdown: unsafe extern "C" fn() -> c_int,
    chdb_query_with_params_n: QueryWithParameters,
    chdb_stream_query_with_params_n: QueryWithParameters,
    chdb_stream_fetch_result: unsafe extern "C" fn(*mut c_void, *mut c_void) -> *mut c_void,
    chdb_stream_cancel_query: unsafe extern "C" fn(*mut c_void, *mut c_void),
    chdb_stream_insert_with_params_n: QueryWithParameters,
    chdb_stream_append: unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> c_int,
    chdb_stream_done: unsafe extern "C" fn(*mut c_void) -> *mut c_void,
    chdb_stream_insert_error: unsafe extern "C" fn(*mut c_void) -> *const c_char,
    chdb_destroy_insert_stream: unsafe extern "C" fn(*mut c_void),
    chdb_result_buffer: unsafe extern "C" fn(*mut c_void) -> *const u8,
    chdb_result_length: unsafe extern "C" fn(*mut c_void) -> usize,
    chdb_result_error: unsafe extern "C" fn(*mut c_void) -> *const c_char,
    chdb_result_rows_written: unsafe extern "C" fn(*mut c_void) -> u64,
    chdb_result_bytes_written: unsafe extern "C" fn(*mut c_void) -> u64,
    chdb_destroy_query_result: unsafe extern "C" fn(*mut c_void),
}

/// The running engine of this process: there can be only one.
pub(crate) struct Engine {
    functions: Functions,
    /// Every connection must be opened with the very same bytes, or it means another engine.
    arguments: Vec<CString>,
    /// Keeps the engine alive between requests.
    keep: Connected,
}

// SAFETY: the C interface allows connections to be opened and closed from any thread, `keep` is only closed by `close`
// or `drop`, which own the engine; everything else in here is immutable.
unsafe impl Send for Engine {}
// SAFETY: as above; `&Engine` only opens new connections, which the library serialises itself.
unsafe impl Sync for Engine {}

impl Engine {
    /// Loads `library` and starts the engine on the folder `path`, configured by the file `config`.
    pub(crate) fn open(library: &Path, path: &Path, config: &Path) -> anyhow::Result<Self> {
        // SAFETY: loading runs the library's initialisers, which do nothing but set up its own statics.
        let library = unsafe { Library::new(library) }
            .with_context(|| format!("cannot load the engine library {}", library.display()))?;
        let functions = Functions::load(&library)?;
        std::mem::forget(library);
        let argument = |text: String| CString::new(text).context("a path has a NUL byte in it");
        let arguments = vec![
            argument("audit-local".to_owned())?,
            argument(format!("--path={}", path.display()))?,
            argument(format!("--config-file={}", config.display()))?,
            // A real server does not take `1+1` for `SELECT 1+1`.
            argument("--implicit_select=0".to_owned())?,
        ];
        // SAFETY: no arguments by reference; called before the first connection, as the header demands.
        unsafe { (functions.chdb_set_signal_handlers_enabled)(0) };
        let keep = connect(&functions, &arguments).context(
            "the engine did not start (a message of its own, if it had one, stands above this line)",
        )?;
        Ok(Self {
            functions,
            arguments,
            keep,
        })
    }

    /// Opens a connection of its own settings and database; 0.1 ms.
    pub(crate) fn connect(&self) -> Result<Connection<'_>, Exception> {
        let handle = connect(&self.functions, &self.arguments)
            .ok_or_else(|| Exception::internal("the engine takes no more connections"))?;
        Ok(Connection {
            engine: self,
            handle,
        })
    }

    /// Stops the engine: all is on disk, and the folder is free, when this returns.
    pub(crate) fn close(self) {
        drop(self);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // SAFETY: `keep` is live and closed here only; connections borrow the engine, so this is the last one.
        unsafe { (self.functions.chdb_close_conn)(self.keep) };
        // SAFETY: no connection is left. Its result only says whether threads are left, which is harmless now.
        unsafe { (self.functions.chdb_shutdown)() };
    }
}

fn connect(functions: &Functions, arguments: &[CString]) -> Option<Connected> {
    let mut pointers: Vec<*mut c_char> = arguments.iter().map(|a| a.as_ptr().cast_mut()).collect();
    let count = c_int::try_from(pointers.len()).ok()?;
    // SAFETY: `pointers` holds `count` NUL-terminated strings that live past the call; the library does not write to them.
    let handle = unsafe { (functions.chdb_connect)(count, pointers.as_mut_ptr()) };
    (!handle.is_null()).then_some(handle)
}

/// One connection: a session with its own settings, current database and temporary tables.
pub(crate) struct Connection<'engine> {
    engine: &'engine Engine,
    handle: Connected,
}

impl Connection<'_> {
    /// Runs a statement to its end and returns all of its output.
    pub(crate) fn run(
        &mut self,
        sql: &[u8],
        format: &str,
        parameters: &[Parameter],
    ) -> Result<Rows, Exception> {
        let run = self.engine.functions.chdb_query_with_params_n;
        Rows::take(
            self.engine.functions,
            self.call(run, sql, format, parameters),
        )
    }

    /// Starts a query whose output is fetched piece by piece.
    pub(crate) fn stream(
        &mut self,
        sql: &[u8],
        format: &str,
        parameters: &[Parameter],
    ) -> Result<RowStream<'_>, Exception> {
        let stream = self.engine.functions.chdb_stream_query_with_params_n;
        let handle = Rows::take(
            self.engine.functions,
            self.call(stream, sql, format, parameters),
        )?;
        Ok(RowStream {
            functions: self.engine.functions,
            connection: self.raw(),
            handle,
            borrowed: std::marker::PhantomData,
        })
    }

    /// Starts an insert whose rows, in `format`, are appended piece by piece.
    pub(crate) fn insert(
        &mut self,
        sql: &[u8],
        format: &str,
        parameters: &[Parameter],
    ) -> Result<InsertStream<'_>, Exception> {
        let functions = self.engine.functions;
        let insert = functions.chdb_stream_insert_with_params_n;
        let stream = InsertStream {
            functions,
            handle: self.call(insert, sql, format, parameters),
            borrowed: std::marker::PhantomData,
        };
        // SAFETY: the handle is live and never NULL; the text belongs to it and is copied at once.
        match unsafe { text((functions.chdb_stream_insert_error)(stream.handle)) } {
            Some(message) => Err(Exception::from_engine(message)),
            None => Ok(stream),
        }
    }

    fn call(
        &mut self,
        function: QueryWithParameters,
        sql: &[u8],
        format: &str,
        parameters: &[Parameter],
    ) -> *mut c_void {
        let names: Vec<_> = parameters.iter().map(|(n, _)| n.as_ptr().cast()).collect();
        let name_lengths: Vec<_> = parameters.iter().map(|(n, _)| n.len()).collect();
        let values: Vec<_> = parameters.iter().map(|(_, v)| v.as_ptr().cast()).collect();
        let value_lengths: Vec<_> = parameters.iter().map(|(_, v)| v.len()).collect();
        // SAFETY: the connection is live and `&mut` keeps others off it; every pointer goes with its length, and all of
        // it outlives the call, which copies what it keeps.
        unsafe {
            function(
                self.raw(),
                sql.as_ptr().cast(),
                sql.len(),
                format.as_ptr().cast(),
                format.len(),
                names.as_ptr(),
                name_lengths.as_ptr(),
                values.as_ptr(),
                value_lengths.as_ptr(),
                parameters.len(),
            )
        }
    }

    fn raw(&self) -> *mut c_void {
        // SAFETY: `chdb_connect` returned a pointer to a live connection, which only `drop` closes.
        unsafe { *self.handle }
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        // SAFETY: live until here, closed once; streams borrow the connection and are gone.
        unsafe { (self.engine.functions.chdb_close_conn)(self.handle) };
    }
}

/// A result: the bytes of the rows it holds, in the format asked for.
pub(crate) struct Rows {
    functions: Functions,
    handle: *mut c_void,
}

// SAFETY: a result owns its buffer and knows nothing of its connection; reading it changes nothing.
unsafe impl Send for Rows {}
// SAFETY: as above.
unsafe impl Sync for Rows {}

impl Rows {
    fn take(functions: Functions, handle: *mut c_void) -> Result<Self, Exception> {
        if handle.is_null() {
            return Err(Exception::internal("the engine returned no result"));
        }
        let rows = Self { functions, handle };
        // SAFETY: the handle is live; the text belongs to it and is copied at once.
        match unsafe { text((functions.chdb_result_error)(handle)) } {
            Some(message) => Err(Exception::from_engine(message)),
            None => Ok(rows),
        }
    }

    /// Rows and bytes that an insert wrote, views included.
    pub(crate) fn written(&self) -> (u64, u64) {
        let functions = self.functions;
        // SAFETY: plain getters on a live result.
        unsafe {
            (
                (functions.chdb_result_rows_written)(self.handle),
                (functions.chdb_result_bytes_written)(self.handle),
            )
        }
    }
}

impl AsRef<[u8]> for Rows {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: plain getters on a live result; the buffer is never changed and lives as long as the result.
        unsafe {
            let buffer = (self.functions.chdb_result_buffer)(self.handle);
            match (self.functions.chdb_result_length)(self.handle) {
                0 => &[],
                _ if buffer.is_null() => &[],
                length => std::slice::from_raw_parts(buffer, length),
            }
        }
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        // SAFETY: live until here, destroyed once.
        unsafe { (self.functions.chdb_destroy_query_result)(self.handle) };
    }
}

/// A query being read. Dropping it stops the query.
pub(crate) struct RowStream<'connection> {
    functions: Functions,
    connection: *mut c_void,
    handle: Rows,
    borrowed: std::marker::PhantomData<&'connection mut ()>,
}

impl RowStream<'_> {
    /// The next piece of output, a complete document of the format each time; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Rows>, Exception> {
        // SAFETY: both handles are live, and `&mut` keeps the fetches in a row.
        let piece = unsafe {
            (self.functions.chdb_stream_fetch_result)(self.connection, self.handle.handle)
        };
        let piece = Rows::take(self.functions, piece)?;
        Ok((!piece.as_ref().is_empty()).then_some(piece))
    }
}

impl Drop for RowStream<'_> {
    fn drop(&mut self) {
        // SAFETY: both handles are live; after the natural end, or an error, this does nothing.
        unsafe { (self.functions.chdb_stream_cancel_query)(self.connection, self.handle.handle) };
    }
}

/// An insert under way. Dropping it before [`InsertStream::finish`] stores nothing.
pub(crate) struct InsertStream<'connection> {
    functions: Functions,
    handle: *mut c_void,
    borrowed: std::marker::PhantomData<&'connection mut ()>,
}

impl InsertStream<'_> {
    /// Hands over a piece of the rows and blocks while the engine is behind. `false`: it failed, `finish` says why.
    pub(crate) fn append(&mut self, piece: &[u8]) -> bool {
        // SAFETY: the handle is live; the piece goes with its length and is copied.
        unsafe {
            (self.functions.chdb_stream_append)(self.handle, piece.as_ptr().cast(), piece.len())
                == 0
        }
    }

    /// Stores the rows; when this returns `Ok` they are in the table.
    pub(crate) fn finish(self) -> Result<Rows, Exception> {
        // SAFETY: the handle is live; `self` is gone after this, so it is finished once.
        let done = unsafe { (self.functions.chdb_stream_done)(self.handle) };
        Rows::take(self.functions, done)
    }
}

impl Drop for InsertStream<'_> {
    fn drop(&mut self) {
        // SAFETY: live until here, destroyed once; this cancels what was not finished.
        unsafe { (self.functions.chdb_destroy_insert_stream)(self.handle) };
        self.handle = ptr::null_mut();
    }
}

/// Copies a C string, if there is one.
///
/// # Safety
/// `text` is NULL or a NUL-terminated string that is not freed during the call.
unsafe fn text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    (!text.is_empty()).then(|| text.into_owned())
}
