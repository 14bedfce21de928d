/** Goes over whole disks with several threads: copies them, compares them. */
package io.qnbd.server.transfer;
