/** Encryption: sector ciphers, and the LUKS header that holds their key. Bytes in, bytes out. */
package io.qnbd.image.crypt;
