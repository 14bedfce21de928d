/** Virtual disks kept in image files: opening, creating, reading, writing and checking them. */
package io.qnbd.image;
