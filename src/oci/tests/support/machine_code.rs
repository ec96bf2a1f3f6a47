//! Programs of a few instructions, for the calling conventions that no compiler here makes programs for.

/// What a system call returns, negated, becomes the exit code: the errno of one that fails.
#[derive(Clone, Copy, Debug)]
pub enum Convention {
    /// A 32-bit x86 program.
    X86,
    /// A 64-bit program that uses the 32-bit entry into the kernel.
    X86FromX86_64,
    /// A 64-bit program.
    X86_64,
    /// A 64-bit program that sets the bit of x32.
    X32,
}

/// An executable that makes one call with up to three arguments.
pub fn program(convention: Convention, number: u32, arguments: [u32; 3]) -> Vec<u8> {
    let mut code = Vec::new();
    let mut emit = |opcode: &[u8], operand: Option<u32>| {
        code.extend_from_slice(opcode);
        code.extend(operand.into_iter().flat_map(u32::to_le_bytes));
    };
    match convention {
        Convention::X86 | Convention::X86FromX86_64 => {
            // mov eax, ebx, ecx, edx; int 0x80; neg eax; mov ebx, eax; mov eax, exit; int 0x80
            emit(&[0xb8], Some(number));
            emit(&[0xbb], Some(arguments[0]));
            emit(&[0xb9], Some(arguments[1]));
            emit(&[0xba], Some(arguments[2]));
            emit(&[0xcd, 0x80, 0xf7, 0xd8, 0x89, 0xc3], None);
            emit(&[0xb8], Some(1));
            emit(&[0xcd, 0x80], None);
        }
        Convention::X86_64 | Convention::X32 => {
            let x32 = matches!(convention, Convention::X32);
            // mov eax, edi, esi, edx; syscall; neg rax; mov rdi, rax; mov eax, exit; syscall
            emit(&[0xb8], Some(number | if x32 { 0x4000_0000 } else { 0 }));
            emit(&[0xbf], Some(arguments[0]));
            emit(&[0xbe], Some(arguments[1]));
            emit(&[0xba], Some(arguments[2]));
            emit(&[0x0f, 0x05, 0x48, 0xf7, 0xd8, 0x48, 0x89, 0xc7], None);
            emit(&[0xb8], Some(60));
            emit(&[0x0f, 0x05], None);
        }
    }
    if matches!(convention, Convention::X86) {
        elf32(&code)
    } else {
        elf64(&code)
    }
}

const BASE: u32 = 0x0804_8000;

fn elf32(code: &[u8]) -> Vec<u8> {
    const HEADERS: u32 = 52 + 32;
    let size = HEADERS + u32::try_from(code.len()).unwrap();
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
    // Version, entry, program headers, section headers, flags.
    words(&mut file, &[1, BASE + HEADERS, 52, 0, 0]);
    file.extend([52, 32, 1, 0, 0, 0].into_iter().flat_map(u16::to_le_bytes));
    // PT_LOAD, offset, addresses, sizes, read and execute, alignment.
    words(&mut file, &[1, 0, BASE, BASE, size, size, 5, 0x1000]);
    file.extend_from_slice(code);
    file
}

fn elf64(code: &[u8]) -> Vec<u8> {
    const HEADERS: u32 = 64 + 56;
    let size = HEADERS + u32::try_from(code.len()).unwrap();
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0".to_vec();
    // Version, then 64-bit values: entry, program headers, section headers; flags.
    words(&mut file, &[1, BASE + HEADERS, 0, 64, 0, 0, 0, 0]);
    file.extend([64, 56, 1, 0, 0, 0].into_iter().flat_map(u16::to_le_bytes));
    // PT_LOAD, read and execute, then 64-bit values: offset, addresses, sizes, alignment.
    words(
        &mut file,
        &[1, 5, 0, 0, BASE, 0, BASE, 0, size, 0, size, 0, 0x1000, 0],
    );
    file.extend_from_slice(code);
    file
}

fn words(file: &mut Vec<u8>, words: &[u32]) {
    file.extend(words.iter().flat_map(|word| word.to_le_bytes()));
}
