/** Types of what Vite adds to imports. Read by the compiler alone. */
/// <reference types="vite/client" />
