# Decoders whose libraries are opened when the first such image is read, as libcurl is for pull: they
# bring many others (libheif a dozen, an encoder among them), which most runs and most apps never
# need. The build needs only their headers.

# fastvlm_decoder(NAME HEADER FUNCTION PACKAGE): turns FASTVLM_NAME into ON or OFF. The header must
# name the function, which tells versions that are too old.
function(fastvlm_decoder name header function package)
    set(wanted ${FASTVLM_${name}})
    set(found OFF)
    if(FASTVLM_IMAGE AND wanted)
        find_path(FASTVLM_${name}_INCLUDE ${header})
        mark_as_advanced(FASTVLM_${name}_INCLUDE)
        if(FASTVLM_${name}_INCLUDE)
            set(found ON)
            file(STRINGS ${FASTVLM_${name}_INCLUDE}/${header} lines REGEX "${function}" LIMIT_COUNT 1)
            if(function AND NOT lines)
                set(found OFF)
            endif()
        endif()
        if(NOT found AND wanted STREQUAL "AUTO")
            message(STATUS "fastvlm does not read ${name}: no ${header}, or too old (Debian: ${package})")
        elseif(NOT found)
            message(FATAL_ERROR "FASTVLM_${name} is ON, and ${header} is missing or too old "
                "(Debian: apt install ${package})")
        endif()
    endif()
    if(found)
        set(FASTVLM_DECODER_DEFINITIONS ${FASTVLM_DECODER_DEFINITIONS} FASTVLM_${name}=1 PARENT_SCOPE)
        set(FASTVLM_DECODER_INCLUDES ${FASTVLM_DECODER_INCLUDES} ${FASTVLM_${name}_INCLUDE} PARENT_SCOPE)
    endif()
endfunction()
